"""The use case: a cited summary of a document, made once and told to everyone who asks for it at the time."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.runtime.errors import FieldViolation, InvalidArgument
from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.events import Event, Finished, Progress, SentenceReady, TextDelta
from services.summarizer.domain.failover import Failover
from services.summarizer.domain.grounding import ground, text_of
from services.summarizer.domain.keys import summary_key
from services.summarizer.domain.language import speaks
from services.summarizer.domain.map_reduce import Bill, Job, MapReduce
from services.summarizer.domain.models import Model, Models
from services.summarizer.domain.personal_kinds import REPLACING_NOTHING, Counts, Policy
from services.summarizer.domain.plain_output import PlainStream
from services.summarizer.domain.ports import ActAs, Deadline, SummaryCache
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.reading import Reading, builder_for
from services.summarizer.domain.savings import Savings, free_event
from services.summarizer.domain.scans import Scans
from services.summarizer.domain.sightings import Sightings
from services.summarizer.domain.similar import ReuseSavings, marked
from services.summarizer.domain.single_flight import Emit, SingleFlight
from services.summarizer.domain.values import Caller, Consumption, Money, Options, Sentence, Summary, TokenCount
from services.summarizer.domain.veil import Restoring
from services.summarizer.domain.veiled import chunking_with, counts_of, hidden_job, restored_claims, untold, veil_for

MAX_DELTA_CHARS = 100_000
"""The contract's bound of StreamSummarizeResponse.text_delta."""

FlightKey = tuple[str, str, bytes, tuple[str, ...], Hashable]
Flights = SingleFlight[FlightKey, Event]


class SummaryMaker:
    """Makes one summary: pages, chunks, paid answers, checked citations."""

    def __init__(
        self,
        *,
        scans: Scans,
        map_reduce: MapReduce,
        act_as: ActAs,
        anonymised: Callable[[Counts], None] = untold,
        reuse: ReuseSavings | None = None,
    ) -> None:
        """`anonymised` hears what was replaced, by kind, and `reuse` what was saved by answers to other documents."""
        self._anonymised = anonymised
        self._reuse = reuse
        self._scans = scans
        self._map_reduce = map_reduce
        self._act_as = act_as

    async def make(self, job: Job, emit: Emit[Event], deadline: Deadline, bill: Bill) -> Summary:
        """The summary; its progress, text and sentences are emitted on the way, and `bill` is filled as calls are
        paid for.

        Raises what PageSource, Results, Books and Provider raise, and InvalidArgument LANGUAGE_NOT_SUPPORTED.
        """
        bill.reused.clear()  # by a model that failed, and for it alone
        # Reading is one call with one deadline, which cannot move when somebody joins who waits for longer. So it has
        # none of its listeners': the last of them who leaves ends it.
        with self._act_as(job.caller):
            veil = veil_for(job)
            builder = builder_for(job.model, job.options)
            reading = await self._scans.read(
                job,
                builder,
                lambda done, of: emit(Progress(done, of, 0, 0)),
                bill,
                lambda: self._act_as(job.caller, deadline),
                chunked=chunking_with(veil, [job.options.focus, job.options.audience], builder),
            )
        check_language(job, reading)
        tell = _ChunkProgress(reading, emit)
        tell.begun()
        stream, restoring = PlainStream(), Restoring(veil)
        with self._act_as(job.caller, deadline):
            claims = await self._map_reduce.answer(
                hidden_job(job, veil),
                reading.chunks,
                bill,
                chunk_done=tell.chunk_done,
                on_text=lambda text: _emit_text(stream.feed(restoring.feed(text)), emit),
            )
            if bill.reused and self._reuse is not None:
                await self._reuse.tell(job.caller, job.document, job.model.name, bill.reused)
        _emit_text(stream.feed(restoring.finish()) + stream.finish(), emit)
        # One part is one answer, whatever a sentence of it cites; several were made into one here.
        all_from = bill.reused[0].document if bill.reused and len(reading.chunks) == 1 else ""
        sentences: list[Sentence] = []
        grounded = ground(restored_claims(claims, veil), reading.locator)
        # A quote that stands on no page is looked for on all of them.
        while (sentence := await asyncio.to_thread(next, grounded, None)) is not None:
            sentences.append(marked(sentence, bill.reused, all_from=all_from))
            emit(SentenceReady(sentences[-1]))
        self._anonymised(counts_of(veil))
        return replace(_summary(job, reading, tuple(sentences), bill), anonymised=counts_of(veil))


class StreamSummarize:
    """Answers from the cache, from a run that is under way, or by a new run."""

    def __init__(
        self,
        *,
        models: Models,
        sightings: Sightings,
        cache: SummaryCache,
        flights: Flights,
        maker: SummaryMaker,
        savings: Savings,
        keeper: Keeper,
        new_id: Callable[[], str],
        now_s: Callable[[], float],
        failed_over: Callable[[Model, Model, str], None],
        policy: Policy = REPLACING_NOTHING,
    ) -> None:
        self._policy = policy
        self._models = models
        self._sightings = sightings
        self._cache = cache
        self._flights = flights
        self._maker = maker
        self._savings = savings
        self._keeper = keeper
        self._new_id = new_id
        self._now_s = now_s
        self._failed_over = failed_over

    async def __call__(
        self,
        caller: Caller,
        document: str,
        options: Options,
        *,
        fallbacks: Sequence[str] = (),
        purse: Purse | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Events of the summary, Finished last. Closing the iterator gives up; a run with no listener is cancelled.

        `fallbacks` are names of models that may answer where that of the options cannot; without any the tenant's
        or the deployment's. `purse` bounds what is spent. `deadline`, in the event loop's time, is until when the
        caller waits; a run goes by its most patient listener.

        Raises InvalidArgument (unknown model, language that it does not write), PermissionDenied (a model that the
        tenant does not allow), NotFound (no such document of this tenant, whatever the cache holds), FailedPrecondition
        (no text, too much of it, MAX_COST_EXCEEDED), ResourceExhausted (budget, rate), Unavailable, DeadlineExceeded.
        """
        models = await self._models.lineup(caller.tenant, options.model, fallbacks)
        model = models[0]
        ocr = await self._models.reader(caller.tenant, options.ocr_model)
        options = replace(
            options,
            model=model.name,
            ocr_model="" if ocr is None else ocr.name,
            anonymise=self._policy.kinds(options.anonymise),
        )
        keys = keys_of(caller.tenant, document, options, model)
        cached = await self._look(caller, document, keys)
        if cached is not None:
            self._record_saving(caller, cached, "cache")
            for sentence in cached.sentences:
                yield SentenceReady(sentence)
            yield Finished(replace(_free(cached), cached=True))
            return
        job = Job(caller, document, options, model, purse=purse, ocr=ocr)
        # Who pays, and how much, is part of the key: a listener must not fail, or be served, on another one's budget.
        bound = None if purse is None else purse.key
        flight_key = (caller.actor, caller.project, keys[-1], tuple(model.name for model in models), bound)
        seat = self._flights.join(
            flight_key, lambda emit, latest: self._run(job, models, emit, latest), deadline=deadline
        )
        with seat:
            async for event in seat:
                if isinstance(event, Finished) and not seat.leads:
                    self._record_saving(caller, event.summary, "shared")
                    yield Finished(_free(event.summary))
                else:
                    yield event

    async def _look(self, caller: Caller, document: str, keys: Sequence[bytes]) -> Summary | None:
        looking = asyncio.create_task(first_kept(self._cache, caller.tenant, keys))
        try:
            await self._sightings.exists(caller.tenant, document)
            return await looking
        finally:
            looking.cancel()

    async def _run(self, job: Job, models: Sequence[Model], emit: Emit[Event], deadline: Deadline) -> None:
        failover = Failover[Summary, Event](
            lambda asked, emit, bill: self._maker.make(asked, emit, deadline, bill), observe=self._failed_over
        )
        async with self._keeper.working_on(job) as held:
            summary = await failover(held, models, emit)
            # Without some of its pages it is not kept: the next one who asks may have more luck with them.
            if not summary.failed_pages and not summary.scans.failed:
                own = replace(summary, degraded_from="")
                await self._keeper.keep(held, self._key_of(held, own), own)
        emit(Finished(summary))

    def _key_of(self, job: Job, summary: Summary) -> bytes:
        """Under which it is kept: that of the model that wrote it, since the other may be back for the next one."""
        model = self._models.resolve(summary.model)
        options = replace(job.options, model=model.name)
        return summary_key(
            job.caller.tenant,
            job.document,
            options,
            provider_version=model.provider.version,
            reused=bool(summary.reused),
        )

    def _record_saving(self, caller: Caller, summary: Summary, source: str) -> None:
        event = free_event(
            event_id=self._new_id(),
            model=summary.model,
            document=summary.document,
            caller=caller,
            now_s=self._now_s(),
            source=source,
            saved=summary.consumption.cost,
        )
        self._savings.add(caller, event)


class Summarize:
    """The same for those who only want the summary."""

    def __init__(self, stream: StreamSummarize) -> None:
        self._stream = stream

    async def __call__(
        self,
        caller: Caller,
        document: str,
        options: Options,
        *,
        fallbacks: Sequence[str] = (),
        purse: Purse | None = None,
        deadline: float | None = None,
    ) -> Summary:
        """The summary. Raises what StreamSummarize raises."""
        async with aclosing(
            self._stream(caller, document, options, fallbacks=fallbacks, purse=purse, deadline=deadline)
        ) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.summary
        raise AssertionError("a stream of events ended without its last one")


@dataclass(slots=True)
class _ChunkProgress:
    reading: Reading
    emit: Emit[Event]
    done: int = 0

    def begun(self) -> None:
        self.emit(Progress(self.reading.pages_read, self.reading.page_count, self.done, len(self.reading.chunks)))

    def chunk_done(self) -> None:
        self.done += 1
        self.begun()


def keys_of(tenant: str, document: str, options: Options, model: Model) -> tuple[bytes, ...]:
    """Under which the summary may be kept: as it is made of the document alone, and then, where the caller wants that,
    with answers to others."""
    kinds = (False, True) if options.reuse_similar else (False,)
    return tuple(
        summary_key(tenant, document, options, provider_version=model.provider.version, reused=reused)
        for reused in kinds
    )


async def first_kept(cache: SummaryCache, tenant: str, keys: Sequence[bytes]) -> Summary | None:
    """The first that the cache has."""
    for key in keys:
        if (summary := await cache.get(tenant, key)) is not None:
            return summary
    return None


def check_language(job: Job, reading: Reading) -> None:
    """Refuses another language than the document's, as its beginning tells it, to a model that does not write. Nothing
    is reserved before."""
    language = job.options.language
    if job.model.abilities.writes or not language or speaks(reading.chunks[0].text, language):
        return
    raise InvalidArgument(
        "LANGUAGE_NOT_SUPPORTED",
        f"This model chooses sentences and cannot write {language!r}, which the document is not in. "
        "Leave the language empty or choose a model that writes.",
        fields=[FieldViolation("options.language", "must be the document's own for a model that chooses sentences")],
    )


def _emit_text(text: str, emit: Emit[Event]) -> None:
    for start in range(0, len(text), MAX_DELTA_CHARS):
        emit(TextDelta(text[start : start + MAX_DELTA_CHARS]))


def _summary(job: Job, reading: Reading, sentences: tuple[Sentence, ...], bill: Bill) -> Summary:
    return Summary(
        document=job.document,
        text=text_of(sentences, job.options.style),
        sentences=sentences,
        model=job.model.name,
        extractive=not job.model.abilities.writes,
        cached=False,
        failed_pages=reading.failed_pages,
        consumption=bill.consumption(),
        hidden=reading.hidden,
        suspicious_passages=reading.locator.order_count,
        scans=reading.scans,
        reused=tuple(bill.reused),
    )


def _free(summary: Summary) -> Summary:
    """The summary as it is for those for whom nothing was paid."""
    currency = summary.consumption.cost.currency
    nothing = Consumption(TokenCount(0, 0), provider_calls=0, cost=Money(currency, 0), settled=True, usage_event_ids=())
    return replace(summary, consumption=nothing)
