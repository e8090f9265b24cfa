"""Reads a document once: what is kept of it are its chunks for the model and an index of its words for citations."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from services.runtime.errors import FailedPrecondition
from services.summarizer.domain.chunking import MIN_TOKENS, ChunkBuilder
from services.summarizer.domain.citations import Locator
from services.summarizer.domain.fields_values import ChatPrompt
from services.summarizer.domain.limits import MAX_PAGE_CHARS, MAX_PAGE_WORDS, PAGE_TOO_LARGE, Intake
from services.summarizer.domain.models import Model
from services.summarizer.domain.ports import DocumentStart, PageFailed
from services.summarizer.domain.values import (
    NO_SCANS,
    NOTHING_HIDDEN,
    Chunk,
    HiddenText,
    Options,
    Page,
    Prompt,
    ScanReading,
    Stage,
)

MAX_CHUNK_TOKENS = 16_000
"""Larger chunks save calls, smaller ones are read more closely and run side by side."""
CONTEXT_SHARE = 0.95
"""Share of a model's context that is planned for; tokenizers differ a little from what is counted."""
PROGRESS_STEPS = 50
"""Progress is told about so many times while pages are read, however long the document is."""

EMPTY_CHUNK = Chunk(0, "", ())

LONG_PAGE_CHARS = 4_000
"""Taking a longer page in would hold every other call up, the more so where many documents are read at a time (counting
its tokens takes up to 0.8 µs a character, and indexing its words as long): it is done in a thread."""

_ADVICE = {
    PAGE_TOO_LARGE: f"a page holds more than {MAX_PAGE_WORDS:,} words or {MAX_PAGE_CHARS:,} characters; "
    "export the file with pages of a common size",
    "PAGE_TIMEOUT": "the pages take too long to read; export the file with simpler ones",
    "PAGE_MEMORY": "the pages need too much memory; export the file with simpler ones",
}
_EXPORT_AGAIN = "export the file again and upload it anew"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read. `failed_pages` are the numbers of those that could not be."""

    page_count: int
    pages_read: int
    failed_pages: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    locator: Locator
    hidden: HiddenText = NOTHING_HIDDEN
    scans: ScanReading = NO_SCANS


Chunked = Callable[[list[Page]], list[Chunk]]
"""Makes chunks of all pages together."""


class Pages(Protocol):
    """What is read: a PageSource, or one on the way (scans.py)."""

    def pages(self, document: str) -> AsyncGenerator[DocumentStart | Page | PageFailed, None]:
        """As PageSource.pages."""
        ...


async def read(
    source: Pages,
    document: str,
    builder: ChunkBuilder,
    told: Callable[[int, int], None],
    *,
    chunked: Chunked | None = None,
) -> Reading:
    """Reads all pages; `told(pages_read, page_count)` hears of it now and then. With `chunked` that makes the chunks,
    at the end and in a thread, and not the builder.

    Raises what PageSource raises, and FailedPrecondition where no page has any text (DOCUMENT_HAS_NO_TEXT,
    DOCUMENT_UNREADABLE) or all together hold too much (DOCUMENT_TOO_LARGE).
    """
    locator, chunks, failed, intake = Locator(), list[Chunk](), list[PageFailed](), Intake()
    page_count = pages_read = hidden_pages = hidden_words = 0
    texts: list[Page] = []
    async with aclosing(source.pages(document)) as items:
        async for item in items:
            if isinstance(item, DocumentStart):
                page_count = item.page_count
                told(0, page_count)
                continue
            if isinstance(item, PageFailed):
                intake.add(words=item.words, chars=item.chars)
                failed.append(item)
                continue
            intake.add(words=len(item.words), chars=len(item.text))
            pages_read += 1
            hidden_pages, hidden_words = hidden_pages + (item.hidden_words > 0), hidden_words + item.hidden_words
            if chunked is not None:
                await asyncio.to_thread(locator.add, item)
                texts.append(replace(item, words=()))
            elif len(item.text) > LONG_PAGE_CHARS:
                chunks += await asyncio.to_thread(_take, item, locator, builder)
            else:
                chunks += _take(item, locator, builder)
                # Pages come in bursts: the next one is there already, and nobody else would have a turn meanwhile.
                await asyncio.sleep(0)
            if pages_read % max(1, page_count // PROGRESS_STEPS) == 0:
                told(pages_read, page_count)
    chunks += builder.finish() if chunked is None else await asyncio.to_thread(chunked, texts)
    if not chunks:
        raise _nothing_to_read(failed)
    return Reading(
        page_count,
        pages_read,
        tuple(page.number for page in failed),
        tuple(chunks),
        locator,
        HiddenText(hidden_pages, hidden_words),
    )


def _take(page: Page, locator: Locator, builder: ChunkBuilder) -> list[Chunk]:
    """The chunks that are complete by the page."""
    locator.add(page)
    return list(builder.add(page))


def builder_for(model: Model, options: Options) -> ChunkBuilder:
    """A builder of chunks that fit the model together with what is asked of it.

    Raises FailedPrecondition where its context has no room for both.
    """
    prompt = Prompt(Stage.MAP, options, model.short_name, options.length.value, chunk=EMPTY_CHUNK)
    return builder_around(model, prompt, max_tokens=MAX_CHUNK_TOKENS)


def builder_around(model: Model, prompt: ChatPrompt, *, max_tokens: int) -> ChunkBuilder:
    """The same for what is asked by any prompt, whose chunk is EMPTY_CHUNK."""
    frame = model.provider.count(prompt)

    def count(text: str) -> int:
        chunk = replace(EMPTY_CHUNK, text=text, spans=((0, len(text), 1),))
        return model.provider.count(replace(prompt, chunk=chunk)).input_tokens - frame.input_tokens

    room = int(model.abilities.context_tokens * CONTEXT_SHARE) - frame.input_tokens - frame.output_tokens
    if room < MIN_TOKENS:
        raise FailedPrecondition(
            "MODEL_TOO_SMALL", f"The context of {model.name} is too small for this request. Choose another model."
        )
    return ChunkBuilder(max_tokens=min(max_tokens, room), count=count)


def _nothing_to_read(failed: list[PageFailed]) -> FailedPrecondition:
    if failed:
        ((reason, times),) = Counter(page.reason for page in failed).most_common(1)
        return FailedPrecondition(
            "DOCUMENT_UNREADABLE",
            f"No page with text could be read. {times} of {len(failed)} failed with {reason}: "
            f"{_ADVICE.get(reason, _EXPORT_AGAIN)}.",
        )
    return FailedPrecondition(
        "DOCUMENT_HAS_NO_TEXT", "No page of the document carries text; it may be a scan. Upload it with a text layer."
    )
