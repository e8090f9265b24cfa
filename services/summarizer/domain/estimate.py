"""The use case: what a request would use, cost and take, found out without spending anything."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from services.runtime.errors import FailedPrecondition, PagemeshError
from services.summarizer.domain.expected_calls import UNREAD_PAGE, Counted, ExpectedCalls, ExpectedScans, Guess
from services.summarizer.domain.map_reduce import FAN_OUT, Bill, Job, MapReduce
from services.summarizer.domain.models import Models
from services.summarizer.domain.personal_kinds import REPLACING_NOTHING, Counts, Policy
from services.summarizer.domain.ports import PageSource, Results, SummaryCache
from services.summarizer.domain.ports_pictures import PagePictures
from services.summarizer.domain.prices import Prices
from services.summarizer.domain.purse import CURRENCY
from services.summarizer.domain.reading import Reading, builder_for
from services.summarizer.domain.scans import Scans
from services.summarizer.domain.similar import Similar
from services.summarizer.domain.summarize import check_language, first_kept, keys_of
from services.summarizer.domain.tails import Tails
from services.summarizer.domain.values import Caller, Money, Options, Stage, TokenCount
from services.summarizer.domain.veil import Veil
from services.summarizer.domain.veiled import chunking_with, counts_of, hidden_job, veil_for


@dataclass(frozen=True, slots=True)
class Outlay:
    """What calls would use, cost and take."""

    calls: int
    tokens: TokenCount
    cost: Money
    duration_s: float


_NOTHING = Outlay(0, TokenCount(0, 0), Money(CURRENCY, 0), 0.0)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one request would take; see Estimate of the contract. `low` is with terse answers, `expected` with usual
    ones, `high` with the longest."""

    document: str
    model: str
    cached: bool = False
    page_count: int = 0
    failed_page_count: int = 0
    chunk_count: int = 0
    free_chunk_count: int = 0
    low: Outlay = _NOTHING
    expected: Outlay = _NOTHING
    high: Outlay = _NOTHING
    price_book_version: int = 0
    ocr_model: str = ""
    ocr_page_count: int = 0
    anonymised: Counts = field(default_factory=dict)


class EstimateSummary:
    """Goes the way of a summary with calls that are made in thought only (see expected_calls.py)."""

    def __init__(
        self,
        *,
        models: Models,
        pages: PageSource,
        pictures: PagePictures,
        cache: SummaryCache,
        results: Results,
        prices: Prices,
        tails: Tails,
        new_id: Callable[[], str],
        policy: Policy = REPLACING_NOTHING,
        similar: Similar | None = None,
    ) -> None:
        """`similar` only looks."""
        self._policy = policy
        self._similar = similar
        self._models = models
        self._pages = pages
        self._pictures = pictures
        self._cache = cache
        self._results = results
        self._prices = prices
        self._tails = tails
        self._new_id = new_id

    async def __call__(self, caller: Caller, document: str, options: Options) -> Estimate:
        """The estimate, for the caller of the present call. No provider is called and nothing is held.

        Raises what StreamSummarize raises before its first call to a model, FailedPrecondition MODEL_UNPRICED, and
        Unavailable where the ledger cannot tell the price.
        """
        model = await self._models.chosen(caller.tenant, options.model, field="summary.model")
        ocr = await self._models.reader(caller.tenant, options.ocr_model, field="summary.ocr_model")
        options = replace(
            options,
            model=model.name,
            ocr_model="" if ocr is None else ocr.name,
            anonymise=self._policy.kinds(options.anonymise),
        )
        await self._pages.exists(document)
        if await first_kept(self._cache, caller.tenant, keys_of(caller.tenant, document, options, model)) is not None:
            return Estimate(document, model.name, cached=True)
        price = await self._prices.of(model.name)
        job, scanned = Job(caller, document, options, model, ocr=ocr), Bill()
        veil = veil_for(job)
        reading = await self._read(job, scanned, veil)
        check_language(job, reading)
        job = hidden_job(job, veil)
        counted: Counted = {}
        expected, asked = await self._outlay(job, reading, ExpectedCalls(price, Guess.EXPECTED, counted))
        low, _ = await self._outlay(job, reading, ExpectedCalls(price, Guess.LOW, counted))
        high, _ = await self._outlay(job, reading, ExpectedCalls(price, Guess.HIGH, counted))
        low, expected, high = (
            _with_scans(outlay, scanned, guess)
            for outlay, guess in ((low, Guess.LOW), (expected, Guess.EXPECTED), (high, Guess.HIGH))
        )
        return Estimate(
            document,
            model.name,
            page_count=reading.page_count,
            failed_page_count=len(reading.failed_pages),
            chunk_count=len(reading.chunks),
            free_chunk_count=len(reading.chunks) - asked,
            low=low,
            expected=expected,
            high=high,
            price_book_version=price.version,
            anonymised=counts_of(veil),
            ocr_model=options.ocr_model,
            ocr_page_count=len(scanned.calls),
        )

    async def _read(self, job: Job, scanned: Bill, veil: Veil | None) -> Reading:
        """The document's chunks, with what reading its scans would take in `scanned`. It is held meanwhile: reading it
        for an estimate is not its processing."""
        hold_id = self._new_id()
        await self._pages.hold(job.document, hold_id)
        try:
            scans = Scans(self._pages, self._pictures, await self._scan_calls(job), stand_in=UNREAD_PAGE)
            builder = builder_for(job.model, job.options)
            chunked = chunking_with(veil, [job.options.focus, job.options.audience], builder)
            # In the caller's own call, with its deadline.
            return await scans.read(job, builder, _untold, scanned, contextlib.nullcontext, chunked=chunked)
        finally:
            await self._tails.finish(self._release(job.document, hold_id))

    async def _scan_calls(self, job: Job) -> MapReduce:
        """Calls that read pictures in thought."""
        price = await self._prices.of((job.ocr or job.model).name)
        return MapReduce(results=self._results, paid=ExpectedScans(price))

    async def _release(self, document: str, hold_id: str) -> None:
        # Where the extractor is away the hold runs out by itself.
        with contextlib.suppress(PagemeshError):
            await self._pages.release(document, hold_id, processed=False)

    async def _outlay(self, job: Job, reading: Reading, calls: ExpectedCalls) -> tuple[Outlay, int]:
        """What all calls come to, and how many of them are about chunks."""
        bill = Bill()
        way = MapReduce(results=self._results, paid=calls, similar=self._similar)
        try:
            await way.answer(job, reading.chunks, bill, chunk_done=_unheard, on_text=_unheard_text)
        except FailedPrecondition as exc:
            # The longest answers may be more than the model can reduce: the run would end there, with this bill.
            if calls.guess is not Guess.HIGH or exc.reason != "MODEL_TOO_SMALL":
                raise
        used = bill.consumption()
        outlay = Outlay(used.provider_calls, used.tokens, used.cost, _duration(calls.seconds))
        return outlay, len(calls.seconds.get(Stage.MAP, ()))


def _with_scans(outlay: Outlay, scanned: Bill, guess: Guess) -> Outlay:
    """The same with the pages that a model has to read first, FAN_OUT at a time."""
    used = scanned.consumption()
    taken = math.ceil(used.provider_calls / FAN_OUT) * guess.value.scan_s
    return Outlay(
        calls=outlay.calls + used.provider_calls,
        tokens=outlay.tokens,
        cost=Money(outlay.cost.currency, outlay.cost.micros + used.cost.micros),
        duration_s=outlay.duration_s + taken,
    )


def _duration(seconds: dict[Stage, list[float]]) -> float:
    """Calls about chunks go side by side, reductions too, and the last one alone."""
    total = 0.0
    for stage, taken in seconds.items():
        rounds = math.ceil(len(taken) / FAN_OUT)
        if stage is Stage.REDUCE:
            rounds = math.ceil((len(taken) - 1) / FAN_OUT) + 1
        total += rounds * sum(taken) / len(taken)
    return total


def _untold(done: int, of: int) -> None:
    """Nobody watches an estimate being made."""


def _unheard() -> None:
    """Nobody counts chunks that are asked about in thought."""


def _unheard_text(text: str) -> None:
    """Nothing is written."""
