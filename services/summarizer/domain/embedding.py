"""Vectors of documents and of queries: pages become passages, passages vectors, paid once."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby

from services.runtime.errors import FailedPrecondition, PagemeshError
from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.keys import embedding_key
from services.summarizer.domain.limits import Intake
from services.summarizer.domain.map_reduce import FAN_OUT, Bill, Job
from services.summarizer.domain.models import Model, Models
from services.summarizer.domain.paid_calls import Calls, Order
from services.summarizer.domain.ports import DocumentStart, PageFailed, PageSource, Results
from services.summarizer.domain.ports_embeddings import PassageVector, VectorShelf
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.values import Caller, Consumption, Length, Options, Prompt, Stage, Style

PASSAGE_CHARS = 1_500
"""About 250 words: a few paragraphs, which still are about one thing."""
MAX_PARTS = 256
"""Passages of a page; the largest that is read at all (limits.py) has 134, unless its spaces stand badly."""
MAX_BATCH = 32
MAX_BATCH_BYTES = 16_000
"""Of UTF-8 in one call. No text has more tokens than bytes, and 16,384 tokens are what Mistral takes."""
MAX_STORED = 512
"""Passages that are handed over to be kept at a time."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a page; `part` counts from 0."""

    page: int
    part: int
    text: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """What was embedded."""

    model: str
    page_count: int
    passage_count: int
    failed_pages: tuple[int, ...]
    consumption: Consumption


@dataclass(frozen=True, slots=True)
class QueryVector:
    """The vector of a query; empty where there was no query."""

    model: str
    vector: bytes = b""


def passages_of(page: int, text: str) -> Iterator[Passage]:
    """The page in passages of at most PASSAGE_CHARS, each ending at a space where there is one in its second half.
    The same text gives the same passages."""
    at = part = 0
    while at < len(text) and part < MAX_PARTS:
        end = min(at + PASSAGE_CHARS, len(text))
        if end < len(text):
            space = max(text.rfind(sign, at + PASSAGE_CHARS // 2, end) for sign in ("\n", " "))
            end = space + 1 if space > 0 else end
        # Lone surrogates of broken PDFs cannot be sent.
        passage = text[at:end].encode("utf-8", "replace").decode().strip()
        if passage:
            yield Passage(page, part, passage)
            part += 1
        at = end


def batches_of(passages: Iterable[Passage]) -> Iterator[tuple[Passage, ...]]:
    """The passages in the calls that they are sent in. The same passages give the same calls."""
    batch: list[Passage] = []
    size = 0
    for passage in passages:
        more = len(passage.text.encode())
        if batch and (len(batch) == MAX_BATCH or size + more > MAX_BATCH_BYTES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(passage)
        size += more
    if batch:
        yield tuple(batch)


class Vectors:
    """Texts in, vectors out: what was bought before is not bought again. Without a model there are none."""

    def __init__(self, *, model: Model | None, models: Models, results: Results, calls: Calls) -> None:
        """`models` says what tenants allow."""
        self._model = model
        self._models = models
        self._results = results
        self._calls = calls

    async def model(self, tenant: str) -> Model:
        """The deployment's. Raises FailedPrecondition EMBEDDING_NOT_CONFIGURED, PermissionDenied MODEL_NOT_ALLOWED."""
        if self._model is None:
            raise FailedPrecondition(
                "EMBEDDING_NOT_CONFIGURED",
                "This deployment has no model that makes vectors (PAGEMESH_EMBEDDING_MODEL). Search by words instead.",
            )
        return await self._models.admitted(tenant, self._model)

    async def of(self, job: Job, stage: Stage, texts: tuple[str, ...], bill: Bill) -> tuple[bytes, ...]:
        """A vector for each text. Raises what Calls and Results raise."""
        prompt = Prompt(stage, job.options, job.model.short_name, 0, texts=texts)
        key = embedding_key(prompt, model=job.model.name, provider_version=job.model.provider.version)
        found = (await self._results.find(job.caller.tenant, [key])).get(key)
        if found is not None:
            return found.answer.vectors
        order: Order = job.order(prompt, key)
        paid = await self._calls.make(order)
        bill.calls.append(paid)
        return paid.answer.vectors


def query_prompt(model: Model, query: str) -> Prompt:
    """What the model is asked for the vector of a query, as Vectors asks it."""
    text = query.encode("utf-8", "replace").decode().strip()
    # Options of summaries say nothing to vectors.
    options = Options(Length.SHORT, Style.PARAGRAPH, "", "", model.name)
    return Prompt(Stage.EMBED_QUERY, options, model.short_name, 0, texts=(text,))


class EmbedQuery:
    """The vector of a query, for searches."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    async def __call__(self, caller: Caller, query: str) -> QueryVector:
        """Without a query the model alone, which costs nothing. Raises FailedPrecondition EMBEDDING_NOT_CONFIGURED, and
        what calls to models raise."""
        model = await self._vectors.model(caller.tenant)
        text = query.encode("utf-8", "replace").decode().strip()
        if not text:
            return QueryVector(model.name)
        job = _job(caller, "", model, None)
        (vector,) = await self._vectors.of(job, Stage.EMBED_QUERY, (text,), Bill())
        return QueryVector(model.name, vector)


class EmbedDocument:
    """The vectors of a document's pages, made, paid and handed over."""

    def __init__(self, *, vectors: Vectors, pages: PageSource, shelf: VectorShelf, keeper: Keeper) -> None:
        self._vectors = vectors
        self._pages = pages
        self._shelf = shelf
        self._keeper = keeper

    async def __call__(self, caller: Caller, document: str, purse: Purse | None = None) -> Embedded:
        """Embeds what has no vectors yet. Raises FailedPrecondition (EMBEDDING_NOT_CONFIGURED, MAX_COST_EXCEEDED,
        DOCUMENT_HAS_NO_TEXT, too large, encrypted), NotFound, ResourceExhausted, Unavailable, DeadlineExceeded."""
        model = await self._vectors.model(caller.tenant)
        async with self._keeper.working_on(_job(caller, document, model, purse)) as job:
            passages, failed = await self._read(document)
            if not passages:
                raise FailedPrecondition(
                    "DOCUMENT_HAS_NO_TEXT", "No page of the document carries text that could be embedded."
                )
            bill = Bill()
            vectors = await self._all(job, list(batches_of(passages)), bill)
            for part in _whole_pages(vectors):
                await self._shelf.store(document, job.model.name, part)
        return Embedded(
            job.model.name, len({each.page for each in passages}), len(passages), failed, bill.consumption()
        )

    async def _read(self, document: str) -> tuple[list[Passage], tuple[int, ...]]:
        passages, failed, intake = list[Passage](), list[int](), Intake()
        async with aclosing(self._pages.pages(document)) as items:
            async for item in items:
                if isinstance(item, PageFailed):
                    intake.add(words=item.words, chars=item.chars)
                    failed.append(item.number)
                elif not isinstance(item, DocumentStart):
                    intake.add(words=len(item.words), chars=len(item.text))
                    passages += passages_of(item.number, item.text)
        return passages, tuple(failed)

    async def _all(self, job: Job, batches: Sequence[tuple[Passage, ...]], bill: Bill) -> list[PassageVector]:
        """The vectors of all batches, FAN_OUT calls at once. After a failure no call is begun, and those under way are
        waited for: they are paid, and what they bring serves the next try."""
        turns, failures = asyncio.Semaphore(FAN_OUT), list[PagemeshError]()

        async def one(batch: tuple[Passage, ...]) -> list[PassageVector]:
            async with turns:
                if failures:
                    return []
                try:
                    found = await self._vectors.of(job, Stage.EMBED, tuple(each.text for each in batch), bill)
                except PagemeshError as exc:
                    failures.append(exc)
                    return []
            return [PassageVector(each.page, each.part, vector) for each, vector in zip(batch, found, strict=True)]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(batch)) for batch in batches]
        if failures:
            raise failures[0]
        return [vector for task in tasks for vector in task.result()]


def _whole_pages(vectors: Sequence[PassageVector]) -> Iterator[list[PassageVector]]:
    """In parts of at most MAX_STORED; what one page has stays together."""
    part: list[PassageVector] = []
    for _, page in groupby(vectors, key=lambda each: each.page):
        own = list(page)
        if part and len(part) + len(own) > MAX_STORED:
            yield part
            part = []
        part += own
    if part:
        yield part


def _job(caller: Caller, document: str, model: Model, purse: Purse | None) -> Job:
    # Options of summaries say nothing to vectors.
    return Job(caller, document, Options(Length.SHORT, Style.PARAGRAPH, "", "", model.name), model, purse=purse)
