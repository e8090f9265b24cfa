"""Cuts a document into parts that fit a model: always at the same places, and in the memory of one part.

The parts hold every character of every page that has any, in order. A part ends at the end of a page where the next
page does not fit, else at the end of a paragraph, else of a sentence, else of a word.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from services.summarizer.domain.values import Chunk, Page

PAGE_JOINT = "\n\n"
"""Stands between two pages of a chunk and belongs to the first."""

JOINT_TOKENS = 2
"""Allowed for each place where two counted texts meet: a tokenizer may cut the joined text otherwise."""

MIN_TOKENS = 64
"""Smallest budget. Below it a chunk would be cut within words."""

# A text with more characters than this is taken to be too long without being counted, so that the work for a page of
# megabytes grows with its length only. In running text a token is about 4 characters.
_CHARS_PER_TOKEN = 4

# A page that has to be cut is cut into pieces of at most this share of a chunk: so much of a chunk may stay empty.
_PIECES_PER_CHUNK = 8
_BORDER_REACH_CHARS = 4_000

# Where a text may be cut, best first: after a blank line, a line that ends a sentence, a sentence, a line, a word.
_BORDERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\n[^\S\n]*\n\s*",
        r"(?<=[.!?:;])[^\S\n]*\n",
        r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])\s*",
        r"\n",
        r"\s+",
    )
)


def plan(pages: Iterable[Page], *, max_tokens: int, count: Callable[[str], int]) -> Iterator[Chunk]:
    """The chunks of the pages, in order. `count` says how many tokens a text has, or an upper bound of it.

    Pages are read one at a time and only the open chunk is kept. Pages without text are left out. Raises ValueError
    where `max_tokens` is under MIN_TOKENS.
    """
    builder = ChunkBuilder(max_tokens=max_tokens, count=count)
    for page in pages:
        yield from builder.add(page)
    yield from builder.finish()


class ChunkBuilder:
    """The same for pages that arrive over time: `add` each page, then `finish`."""

    def __init__(self, *, max_tokens: int, count: Callable[[str], int]) -> None:
        if max_tokens < MIN_TOKENS:
            raise ValueError(f"a chunk needs at least {MIN_TOKENS} tokens, not {max_tokens}")
        self._max_tokens = max_tokens
        self._count = count
        self._index = 0
        self._parts: list[str] = []
        self._spans: list[tuple[int, int, int]] = []
        self._chars = 0
        self._tokens = 0

    def add(self, page: Page) -> Iterator[Chunk]:
        """Takes the page in; yields the chunks that are complete by it."""
        if not page.text.strip():
            return
        text = page.text + PAGE_JOINT
        tokens = self._measure(text, self._max_tokens)
        if tokens is not None and self._tokens + tokens <= self._max_tokens:
            self._append(text, tokens, page.number)
            return
        if tokens is not None and self._spans and tokens * 4 <= self._max_tokens:
            # Small pages stay whole: at most a quarter of the chunk is left empty for it.
            yield from self.finish()
            self._append(text, tokens, page.number)
            return
        for piece, size in self._pieces(text):
            if self._tokens + size > self._max_tokens:
                yield from self.finish()
            self._append(piece, size, page.number)

    def finish(self) -> Iterator[Chunk]:
        """Closes the open chunk and yields it, if it holds anything."""
        text = "".join(self._parts).rstrip()
        # What is cut off at the end is white space; a page of which nothing is left has no span.
        spans = tuple((start, min(end, len(text)), page) for start, end, page in self._spans if start < len(text))
        self._parts, self._spans, self._chars, self._tokens = [], [], 0, 0
        if text:
            self._index += 1
            yield Chunk(self._index - 1, text, spans)

    def _append(self, text: str, tokens: int, page: int) -> None:
        start, end = self._chars, self._chars + len(text)
        if self._spans and self._spans[-1][2] == page:
            start = self._spans.pop()[0]
        self._spans.append((start, end, page))
        self._parts.append(text)
        self._chars, self._tokens = end, self._tokens + tokens

    def _measure(self, text: str, max_tokens: int) -> int | None:
        """Tokens of the text, or None where there are more; one that is far too long is not even counted."""
        if len(text) > max(max_tokens * _CHARS_PER_TOKEN, 1):
            return None
        tokens = self._count(text) + JOINT_TOKENS
        return tokens if tokens <= max_tokens or len(text) == 1 else None

    def _pieces(self, text: str) -> Iterator[tuple[str, int]]:
        """Pieces with their sizes, small enough to fill a chunk well."""
        tokens = self._measure(text, max(self._max_tokens // _PIECES_PER_CHUNK, 1))
        if tokens is not None:
            yield text, tokens
            return
        cut = _middle_border(text)
        yield from self._pieces(text[:cut])
        yield from self._pieces(text[cut:])


def _middle_border(text: str) -> int:
    """Where to halve the text: the best border near its middle, the middle itself where there is none."""
    middle = len(text) // 2
    reach = min(_BORDER_REACH_CHARS, len(text) // 4)
    for border in _BORDERS:
        ends = [match.end() for match in border.finditer(text, middle - reach, middle + reach)]
        if ends:
            return min(ends, key=lambda end: abs(end - middle))
    return max(1, middle)
