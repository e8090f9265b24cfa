"""Packs the pages that may answer a question into one text that fits a model.

Each page is a passage with a number of its own, because pages of several documents share their numbers. To the model,
and to the locator of citations, the passages are the pages of one document.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.runtime.errors import FailedPrecondition
from services.summarizer.domain.chunking import JOINT_TOKENS, MIN_TOKENS, PAGE_JOINT, plan
from services.summarizer.domain.citations import Locator
from services.summarizer.domain.matching import Terms, matches
from services.summarizer.domain.models import Model
from services.summarizer.domain.ports_questions import PageAt
from services.summarizer.domain.reading import CONTEXT_SHARE, MAX_CHUNK_TOKENS
from services.summarizer.domain.values import Chunk, Page, Prompt

_PIECES = 4
"""A page that does not fit is cut into so many pieces of the room, and the one that matches best is taken."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The text, the page behind each passage (the first one has the number 1), and where quotes are looked for."""

    chunk: Chunk
    sources: tuple[PageAt, ...]
    locator: Locator


def pack(
    pages: Sequence[tuple[PageAt, Page]],
    terms: Terms,
    model: Model,
    prompt: Prompt,
    *,
    shown: Callable[[str], str] = str,
) -> Packed:
    """As many of the pages as fit, which are given best first and stand in order of document and page; `prompt` is what
    they are for, with an empty chunk, and `shown` makes of a page's text what the model is given. For threads: the
    tokens of the text are counted.

    Raises FailedPrecondition MODEL_TOO_SMALL where the model's context has no room for any.
    """
    frame = model.provider.count(prompt)
    empty = Chunk(0, "", ())

    def count(text: str) -> int:
        chunk = replace(empty, text=text, spans=((0, len(text), 1),))
        return model.provider.count(replace(prompt, chunk=chunk)).input_tokens - frame.input_tokens

    room = int(model.abilities.context_tokens * CONTEXT_SHARE) - frame.input_tokens - frame.output_tokens
    if room < MIN_TOKENS:
        raise FailedPrecondition(
            "MODEL_TOO_SMALL", f"The context of {model.name} is too small for this request. Choose another model."
        )
    given = [(at, replace(page, text=shown(page.text))) for at, page in pages]
    taken = _taken(given, terms, min(room, MAX_CHUNK_TOKENS), count)
    chosen = [(at, page, taken[at]) for at, page in sorted(pages, key=lambda item: item[0]) if at in taken]
    parts: list[str] = []
    spans: list[tuple[int, int, int]] = []
    for number, (_, _, text) in enumerate(chosen, start=1):
        start = sum(map(len, parts))
        parts.append(text if number == len(chosen) else text + PAGE_JOINT)
        spans.append((start, start + len(parts[-1]), number))
    locator = Locator(replace(page, number=number) for number, (_, page, _) in enumerate(chosen, start=1))
    return Packed(Chunk(0, "".join(parts), tuple(spans)), tuple(at for at, _, _ in chosen), locator)


def _taken(
    pages: Sequence[tuple[PageAt, Page]], terms: Terms, room: int, count: Callable[[str], int]
) -> dict[PageAt, str]:
    """The text of each page that is taken: all of it where it fits."""
    taken: dict[PageAt, str] = {}
    for at, page in pages:
        text = page.text.strip()
        if not text or room <= 0:
            continue
        size = count(text) + JOINT_TOKENS
        if size > room >= MIN_TOKENS:
            pieces = [piece.text for piece in plan([page], max_tokens=max(MIN_TOKENS, room // _PIECES), count=count)]
            found = matches(terms, pieces)
            text = pieces[max(range(len(pieces)), key=lambda i: (found[i].score, -i))]
            size = count(text) + JOINT_TOKENS
        if size <= room:
            taken[at] = text
            room -= size
    return taken
