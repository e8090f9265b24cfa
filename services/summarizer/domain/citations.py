"""Finds the words that a model quotes on the pages of the document, and where they stand.

A quote is looked for in its folded form first (see folding.py): one substring search a page, which finds it whatever
happened to its spaces, hyphens, ligatures, quotation marks and case. Only then is it compared word by word with a
bounded edit distance. Edits that could turn the meaning round, of numbers and of negations, are never allowed.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from services.summarizer.domain.alignment import align, tokens_of
from services.summarizer.domain.folding import fold, fold_borders, is_spaceless
from services.summarizer.domain.suspects import OrderFinder, Suspects
from services.summarizer.domain.values import Box, Citation, Page, Quote

MAX_QUOTE_CHARS = 4_000
"""Longest quote, asked for or answered: the contract's bound of Citation.quote."""
MAX_BOXES = 200
"""Most lines that a citation touches: the contract's bound of Citation.boxes."""

MAX_WORD_CHARS = 400
"""So much of a word is looked at. Where a script has no spaces a line is one word, and no line is longer."""

# A quote below both sizes says too little to be looked for beyond the page that it names.
_TELLING_CHARS = 12
_TELLING_WORDS = 3
# Work for one quote: occurrences that are compared on one page, pages that are aligned, parts around ellipses.
_MAX_OCCURRENCES = 64
_MAX_ALIGNED_PAGES = 8
_MAX_PARTS = 4
_PROBE_WORDS = 8
ELLIPSIS = re.compile(r"[\[(]?(?:\u2026|\.\.\.+)[\])]?")


@dataclass(frozen=True, slots=True)
class _Span:
    """Words of a page, from `first` to `last`, both included."""

    first: int
    last: int


class _IndexedPage:
    """A page in about a tenth of the memory of its words: for long documents this is what is kept of it."""

    __slots__ = ("_boxes", "_lines", "_raw", "folded", "number", "orders", "parsed", "starts")

    def __init__(self, page: Page) -> None:
        folded = [fold(word.text[:MAX_WORD_CHARS]) for word in page.words]
        self.number = page.number
        self.parsed = None if page.parsed is None else _IndexedPage(replace(page, words=page.parsed, parsed=None))
        """The parser's own reading, where these words are a model's, which knows of no boxes."""
        self.orders: list[tuple[int, int]] = []
        """Words of passages that speak to a model, from the first to the last."""
        self.folded = "".join(folded)
        self.starts = array("I")
        self._lines = array("I")
        self._boxes = array("f")  # as on the wire
        self._raw = "\n".join("".join(word.text.split()) for word in page.words)
        offset = line = 0
        before: tuple[int, int] | None = None
        for word, text in zip(page.words, folded, strict=True):
            here = (word.block, word.line)
            line += before is not None and here != before
            before = here
            self.starts.append(offset)
            self._lines.append(line)
            self._boxes.extend((word.box.x0, word.box.y0, word.box.x1, word.box.y1))
            offset += len(text)

    def words(self) -> list[str]:
        """The words as the parser found them."""
        return self._raw.split("\n") if self.starts else []

    def is_ordered(self, first: int, last: int) -> bool:
        """Whether any of the words stands in a passage that speaks to a model."""
        return any(begin <= last and first <= end for begin, end in self.orders)

    def word_at(self, offset: int) -> int:
        """The word that the folded character at `offset` belongs to."""
        return bisect_right(self.starts, offset) - 1

    def boxes(self, span: _Span) -> tuple[Box, ...]:
        """One box for each line of the span: the hull of its words there."""
        hulls: dict[int, Box] = {}
        for index in range(span.first, span.last + 1):
            x0, y0, x1, y1 = self._boxes[4 * index : 4 * index + 4]
            hull = hulls.get(self._lines[index])
            hulls[self._lines[index]] = (
                Box(x0, y0, x1, y1)
                if hull is None
                else Box(min(hull.x0, x0), min(hull.y0, y0), max(hull.x1, x1), max(hull.y1, y1))
            )
        return tuple(hulls.values())


_Find = Callable[[_IndexedPage, str, int], _Span | None]
"""Looks for a part of a quote on a page, from a word on."""


class Locator:
    """The pages of one document, indexed once for any number of quotes. About 20 kB for a page of 500 words."""

    def __init__(self, pages: Iterable[Page] = ()) -> None:
        self._pages: dict[int, _IndexedPage] = {}
        self._orders = OrderFinder()
        self._suspects: Suspects | None = None
        for page in pages:
            self.add(page)

    def add(self, page: Page) -> None:
        """Takes a page in; the page itself is not kept."""
        indexed = self._pages[page.number] = _IndexedPage(page)
        for number, first, last in self._orders.look_at(page):
            (indexed if number == page.number else self._pages[number]).orders.append((first, last))

    @property
    def order_count(self) -> int:
        """Passages that speak to a model."""
        return self._orders.count

    def is_suspect(self, text: str) -> bool:
        """Whether a sentence says what only a passage that speaks to a model says, so that nothing may support it."""
        if not self._orders.count:
            return False
        if self._suspects is None:
            self._suspects = Suspects((page.words(), page.orders) for page in self._pages.values())
        return self._suspects.speak_in(text)

    def locate(self, quote: Quote) -> Citation | None:
        """Where the words stand, or None where they stand on no page. The page that the quote names is tried first.

        A citation carries the page's own words and the parser's boxes; nothing of it comes from the quote. Of a page
        that a model read the words are the model's, and there are boxes only where the parser read the same there.
        """
        if len(quote.text) > MAX_QUOTE_CHARS or not fold("".join(quote.text.split())):
            return None
        whole = self._locate([quote.text], quote.page)
        if whole is not None:
            return whole
        parts = [part for part in ELLIPSIS.split(quote.text) if fold("".join(part.split()))]
        return self._locate(parts, quote.page) if 1 < len(parts) <= _MAX_PARTS else None

    def _locate(self, parts: list[str], hint: int) -> Citation | None:
        hinted = [self._pages[hint]] if hint in self._pages else []
        if not all(_is_telling(part) for part in parts):
            return self._search(hinted, parts, _find_folded) if len(parts) == 1 else None
        others = [page for page in self._pages.values() if page.number != hint]
        return (
            self._search(hinted, parts, _find_folded)
            or self._search(others, parts, _find_folded)
            or self._search(hinted, parts, _find_aligned)
            or self._search(_likely(others, parts), parts, _find_aligned)
        )

    @staticmethod
    def _search(pages: Iterable[_IndexedPage], parts: list[str], find: _Find) -> Citation | None:
        for page in pages:
            spans = _find_all(page, parts, find)
            citation = _cite(page, spans) if spans else None
            if citation is not None:
                return citation
        return None


def locate(quote: Quote, pages: Mapping[int, Page]) -> Citation | None:
    """Where the quote stands on `pages` (by number). For more than one quote build a Locator and keep it."""
    return Locator(pages.values()).locate(quote)


def _is_telling(part: str) -> bool:
    words = [folded for word in part.split() if (folded := fold(word))]
    return len(words) >= _TELLING_WORDS or sum(map(len, words)) >= _TELLING_CHARS


def _find_all(page: _IndexedPage, parts: list[str], find: _Find) -> list[_Span]:
    """A span for each part, each after the one before; empty where one is missing."""
    spans: list[_Span] = []
    for part in parts:
        span = find(page, part, spans[-1].last + 1 if spans else 0)
        if span is None:
            return []
        spans.append(span)
    return spans


def _find_folded(page: _IndexedPage, part: str, first_word: int) -> _Span | None:
    """The words whose folded text is the part's: where there are several, the one spelled exactly like it."""
    quoted = part.split()
    folded = "".join(fold(word) for word in quoted)
    if first_word >= len(page.starts):
        return None
    found: _Span | None = None
    words: list[str] = []
    offset = page.folded.find(folded, page.starts[first_word])
    for _ in range(_MAX_OCCURRENCES):
        if offset < 0:
            break
        words = words or page.words()
        span = _whole_words(page, words, offset, offset + len(folded))
        if span is not None and words[span.first : span.last + 1] == quoted:
            return span
        found = found or span
        offset = page.folded.find(folded, offset + 1)
    return found


def _whole_words(page: _IndexedPage, words: list[str], start: int, end: int) -> _Span | None:
    """The words that folded characters `start` to `end` make up, or None where they begin or end within a word."""
    first, last = page.word_at(start), page.word_at(end - 1)
    if not _is_border(page, words[first], start - page.starts[first], start):
        return None
    ends_word = end == len(page.folded) or page.word_at(end) != last
    if ends_word or _is_border(page, words[last], end - page.starts[last], end):
        return _Span(first, last)
    # A footnote mark is set close to the word that it belongs to.
    is_mark = page.folded[end - 1].isalpha() and page.folded[end].isdigit()
    return _Span(first, last) if is_mark else None


def _is_border(page: _IndexedPage, word: str, inside: int, offset: int) -> bool:
    if inside == 0 or is_spaceless(page.folded[offset - 1]) or is_spaceless(page.folded[offset]):
        return True
    return inside in fold_borders(word)


def _find_aligned(page: _IndexedPage, part: str, first_word: int) -> _Span | None:
    """The words that differ least from the part, if little enough."""
    looked_at = [word[:MAX_WORD_CHARS] for word in page.words()]
    tokens = [token for token in tokens_of(looked_at) if token.first >= first_word]
    found = align(tokens_of(part.split()), tokens)
    return _Span(tokens[found.first].first, tokens[found.last].last) if found else None


def _likely(pages: list[_IndexedPage], parts: list[str]) -> list[_IndexedPage]:
    """The few pages worth aligning: those that hold at least half of the quote's longest words."""
    words = {fold(word) for part in parts for word in part.split()} - {""}
    probes = sorted(words, key=lambda word: (-len(word), word))[:_PROBE_WORDS]
    held = [(sum(probe in page.folded for probe in probes), page) for page in pages]
    worth = [(count, page) for count, page in held if 2 * count >= len(probes)]
    worth.sort(key=lambda item: (-item[0], item[1].number))
    return [page for _, page in worth[:_MAX_ALIGNED_PAGES]]


def _cite(page: _IndexedPage, spans: list[_Span]) -> Citation | None:
    if any(page.is_ordered(span.first, span.last) for span in spans):
        return None
    words = page.words()
    parts = [" ".join(words[span.first : span.last + 1]) for span in spans]
    quote = " \u2026 ".join(parts)
    if page.parsed is not None:
        spans = _find_all(page.parsed, parts, _find_folded) or _find_all(page.parsed, parts, _find_aligned)
    boxes = tuple(box for span in spans for box in (page.parsed or page).boxes(span))
    if len(quote) > MAX_QUOTE_CHARS or len(boxes) > MAX_BOXES:
        return None
    return Citation(page=page.number, quote=quote, boxes=boxes, by_model=page.parsed is not None)
