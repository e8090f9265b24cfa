"""The use case: what a summary would use, cost and take, found out without spending anything."""

import math
from dataclasses import dataclass, field, replace

from services.runtime.errors import FailedPrecondition
from services.summarizer.domain.estimate_thoughts import Thoughts, as_it_is
from services.summarizer.domain.expected_calls import Counted, ExpectedCalls, Guess, Seconds
from services.summarizer.domain.keys import summary_key
from services.summarizer.domain.map_reduce import FAN_OUT, Bill, Job, MapReduce
from services.summarizer.domain.personal_kinds import Counts
from services.summarizer.domain.ports import SummaryCache
from services.summarizer.domain.purse import CURRENCY
from services.summarizer.domain.reading import Reading, builder_for
from services.summarizer.domain.summarize import check_language
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

    def __init__(self, thoughts: Thoughts, *, cache: SummaryCache) -> None:
        self._thoughts = thoughts
        self._cache = cache

    async def __call__(self, caller: Caller, document: str, options: Options, *, at: str = "summary.") -> Estimate:
        """The estimate, for the caller of the present call; `at` is where the request says the options. No provider is
        called and nothing is held.

        Raises what StreamSummarize raises before its first call to a model, FailedPrecondition MODEL_UNPRICED, and
        Unavailable where the ledger cannot tell the price.
        """
        thoughts = self._thoughts
        model = await thoughts.models.chosen(caller.tenant, options.model, field=f"{at}model")
        ocr = await thoughts.models.reader(caller.tenant, options.ocr_model, field=f"{at}ocr_model")
        options = replace(
            options,
            model=model.name,
            ocr_model="" if ocr is None else ocr.name,
            anonymise=thoughts.policy.kinds(options.anonymise),
        )
        await thoughts.pages.exists(document)
        key = summary_key(caller.tenant, document, options, provider_version=model.provider.version)
        if await self._cache.get(caller.tenant, key) is not None:
            return Estimate(document, model.name, cached=True)
        price = await thoughts.prices.of(model.name)
        job, scanned = Job(caller, document, options, model, ocr=ocr), Bill()
        veil = veil_for(job)
        reading = await self._read(job, scanned, veil)
        check_language(job, reading)
        job = hidden_job(job, veil)
        counted: Counted = {}
        expected, asked = await self._outlay(job, reading, ExpectedCalls(price, Guess.EXPECTED, counted))
        low, _ = await self._outlay(job, reading, ExpectedCalls(price, Guess.LOW, counted))
        high, _ = await self._outlay(job, reading, ExpectedCalls(price, Guess.HIGH, counted))
        return estimate_of_reading(
            job, reading, price.version, (low, expected, high), scanned=scanned, asked=asked, veil=veil
        )

    async def _read(self, job: Job, scanned: Bill, veil: Veil | None) -> Reading:
        """The document's chunks, with what reading its scans would take in `scanned`."""
        async with self._thoughts.holding(job.document):
            scans = await self._thoughts.scans(job)
            builder = builder_for(job.model, job.options)
            chunked = chunking_with(veil, [job.options.focus, job.options.audience], builder)
            # In the caller's own call, with its deadline.
            return await scans.read(job, builder, _untold, scanned, as_it_is, chunked=chunked)

    async def _outlay(self, job: Job, reading: Reading, calls: ExpectedCalls) -> tuple[Outlay, int]:
        """What all calls come to, and how many of them are about chunks."""
        bill = Bill()
        way = MapReduce(results=self._thoughts.results, paid=calls)
        try:
            await way.answer(job, reading.chunks, bill, chunk_done=_unheard, on_text=_unheard_text)
        except FailedPrecondition as exc:
            # The longest answers may be more than the model can reduce: the run would end there, with this bill.
            if calls.guess is not Guess.HIGH or exc.reason != "MODEL_TOO_SMALL":
                raise
        return outlay_of(bill, calls.seconds), len(calls.seconds.get(Stage.MAP, ()))


def estimate_of_reading(
    job: Job,
    reading: Reading,
    version: int,
    outlays: tuple[Outlay, Outlay, Outlay],
    *,
    scanned: Bill,
    asked: int,
    veil: Veil | None,
) -> Estimate:
    """The estimate of what is made of a whole reading; `outlays` are low, expected and high, without the scans."""
    low, expected, high = map(_with_scans, outlays, [scanned] * 3, (Guess.LOW, Guess.EXPECTED, Guess.HIGH))
    return Estimate(
        job.document,
        job.model.name,
        page_count=reading.page_count,
        failed_page_count=len(reading.failed_pages),
        chunk_count=len(reading.chunks),
        free_chunk_count=len(reading.chunks) - asked,
        low=low,
        expected=expected,
        high=high,
        price_book_version=version,
        anonymised=counts_of(veil),
        ocr_model="" if job.ocr is None else job.ocr.name,
        ocr_page_count=len(scanned.calls),
    )


def outlay_of(bill: Bill, seconds: Seconds) -> Outlay:
    """What the calls of the bill come to."""
    used = bill.consumption()
    return Outlay(used.provider_calls, used.tokens, used.cost, _duration(seconds))


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


def _duration(seconds: Seconds) -> float:
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
