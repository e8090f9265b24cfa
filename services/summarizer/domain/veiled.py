"""Requests whose personal data is replaced: what of them is hidden, what of their answers is restored.

The makers of answers hide: they see a whole request, so that its parts agree. PaidCalls, the only way to a provider,
seals (sealed_prompts.py): what a maker has left, whatever the reason, is taken out for good.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from services.summarizer.domain.chunking import ChunkBuilder
from services.summarizer.domain.field_normal import MAX_TEXT_CHARS
from services.summarizer.domain.found_field import FoundField
from services.summarizer.domain.map_reduce import Job
from services.summarizer.domain.personal_kinds import Counts
from services.summarizer.domain.reading import Chunked
from services.summarizer.domain.values import Chunk, Claim, Page, Quote
from services.summarizer.domain.veil import Veil

_ESCAPED = re.compile(r"[~/]")


def veil_for(job: Job) -> Veil | None:
    """What hides for the job; None where nothing is to be hidden, or where no text leaves this service."""
    kinds = job.options.anonymise
    return Veil(kinds) if kinds and not job.model.abilities.local else None


def hidden_job(job: Job, veil: Veil | None) -> Job:
    """The job as its model is asked: what the caller wants to know is hidden too."""
    options = job.options
    if veil is None:
        # Nothing was replaced: the answer is the same as without.
        return replace(job, options=replace(options, anonymise=()))
    return replace(job, options=replace(options, focus=veil.hide(options.focus), audience=veil.hide(options.audience)))


def hidden_chunks(pages: Iterable[Page], asked: Sequence[str], builder: ChunkBuilder, veil: Veil) -> list[Chunk]:
    """The chunks of the pages, with placeholders; `asked` are the caller's words, and come first. For threads.

    It is done before pages are cut into chunks: what is cut in two would not be found.
    """
    pages = list(pages)
    for text in (*asked, *(page.text for page in pages)):
        veil.learn(text)
    for text in asked:
        veil.hide(text)
    chunks: list[Chunk] = []
    for page in pages:
        chunks += builder.add(replace(page, text=veil.hide(page.text), words=()))
    return [*chunks, *builder.finish()]


def chunking_with(veil: Veil | None, asked: Sequence[str], builder: ChunkBuilder) -> Chunked | None:
    """How a document is cut into chunks: None for as it is read."""
    return None if veil is None else lambda pages: hidden_chunks(pages, asked, builder, veil)


def counts_of(veil: Veil | None) -> Counts:
    """How many values were replaced, by kind."""
    return {} if veil is None else veil.counts()


def untold(counts: Counts) -> None:
    """Nobody counts what was replaced."""


def restored_claims(claims: Iterable[Claim], veil: Veil | None) -> tuple[Claim, ...]:
    """What a model claims, with the values."""
    if veil is None:
        return tuple(claims)
    return tuple(
        Claim(veil.restore(claim.text), tuple(Quote(veil.restore(quote.text), quote.page) for quote in claim.quotes))
        for claim in claims
    )


def restored_fields(fields: Iterable[FoundField], veil: Veil | None) -> tuple[FoundField, ...]:
    """What a model found, with the values."""
    if veil is None:
        return tuple(fields)
    return tuple(
        FoundField(
            veil.restore(field.pointer, _as_pointer),
            veil.restore(field.value)[:MAX_TEXT_CHARS] if isinstance(field.value, str) else field.value,
            veil.restore(field.quote),
            field.page,
        )
        for field in fields
    )


def _as_pointer(value: str) -> str:
    """A name as it stands in a JSON pointer."""
    return _ESCAPED.sub(lambda found: "~0" if found.group() == "~" else "~1", value)
