"""Asks a model about every chunk, then about its own answers, until one answer is left; pays for nothing twice."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.runtime.errors import FailedPrecondition
from services.summarizer.domain.fields_values import AnyPrompt
from services.summarizer.domain.keys import content_key
from services.summarizer.domain.models import Model
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.paid_calls import Calls, OnText, Order, Paid
from services.summarizer.domain.ports import Results
from services.summarizer.domain.purse import CURRENCY, Purse
from services.summarizer.domain.reading import CONTEXT_SHARE
from services.summarizer.domain.values import (
    Answer,
    Caller,
    Chunk,
    Claim,
    Consumption,
    Money,
    Options,
    Prompt,
    Stage,
    TokenCount,
)

FAN_OUT = 4
"""Calls of one request that are under way at once."""
MAX_PARTS = 16
"""Most answers that are reduced in one call: more would be read less closely."""

Part = tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked, for whom, of which model; `options.model` is resolved. `generation` is that of the document's
    results when the work began, `purse` what it may spend, `ocr` who reads scanned pages; nobody where it is None."""

    caller: Caller
    document: str
    options: Options
    model: Model
    generation: int = 0
    purse: Purse | None = None
    ocr: Model | None = None
    pages: PageRange = ALL_PAGES
    """Those that it is about."""

    def order(self, prompt: AnyPrompt, key: bytes) -> Order:
        """One call of it."""
        return Order(self.caller, self.document, self.model, prompt, key, self.generation, self.purse)


@dataclass(slots=True)
class Bill:
    """The calls that were paid for so far."""

    calls: list[Paid] = field(default_factory=list)

    def consumption(self) -> Consumption:
        """The sum of those that were bought for this request and not for another."""
        calls = [call for call in self.calls if call.bought]
        return Consumption(
            tokens=TokenCount(
                sum(call.answer.tokens.input_tokens for call in calls),
                sum(call.answer.tokens.output_tokens for call in calls),
                sum(call.answer.tokens.pages for call in calls),
            ),
            provider_calls=len(calls),
            cost=Money(
                calls[0].cost.currency if calls else CURRENCY,
                sum(call.cost.micros for call in calls),
            ),
            settled=all(call.settled for call in calls),
            usage_event_ids=tuple(call.event_id for call in calls),
        )


class MapReduce:
    """The calls of one kind of request. Raises what Calls.make and Results.find raise."""

    def __init__(self, *, results: Results, paid: Calls) -> None:
        self._results = results
        self._paid = paid

    async def answer(
        self, job: Job, chunks: Sequence[Chunk], bill: Bill, *, chunk_done: Callable[[], None], on_text: OnText
    ) -> Part:
        """The claims of the last answer, whose text `on_text` hears as it is written.

        `chunk_done` is called for each chunk, `bill` is filled as calls are paid for.
        """
        prompts = [_prompt(job, Stage.MAP, chunk=chunk) for chunk in chunks]
        last = on_text if len(prompts) == 1 else None
        parts = _saying(await self._ask_all(job, prompts, bill, done=chunk_done, on_text=last))
        while len(parts) > 1:
            parts = _saying(await self._reduce(job, parts, bill, on_text))
        return parts[0] if parts else ()

    async def _reduce(self, job: Job, parts: Sequence[Part], bill: Bill, on_text: OnText) -> list[Part]:
        """Fewer parts out of many: one call for each group of neighbours that one call can take."""
        groups = list(_groups(job, parts))
        if len(groups) == len(parts):
            raise FailedPrecondition(
                "MODEL_TOO_SMALL", f"The context of {job.model.name} cannot hold two parts of this summary."
            )
        prompts = [_prompt(job, Stage.REDUCE, claims=_joined(group)) for group in groups if len(group) > 1]
        last = on_text if len(groups) == 1 else None
        answers = iter(await self._ask_all(job, prompts, bill, done=_nothing, on_text=last))
        return [next(answers) if len(group) > 1 else group[0] for group in groups]

    async def _ask_all(
        self,
        job: Job,
        prompts: Sequence[Prompt],
        bill: Bill,
        *,
        done: Callable[[], None],
        on_text: OnText | None,
    ) -> list[Part]:
        """The claims of an answer to each prompt, in order."""
        version = job.model.provider.version
        # In a thread: the text of all chunks together may be megabytes.
        keys = await asyncio.to_thread(
            lambda: [content_key(prompt, model=job.model.name, provider_version=version) for prompt in prompts]
        )
        answers = await self.answers_to(job, prompts, keys, bill, done=done, on_text=on_text)
        return [answer.claims for answer in answers]

    async def answers_to(
        self,
        job: Job,
        prompts: Sequence[AnyPrompt],
        keys: Sequence[bytes],
        bill: Bill,
        *,
        done: Callable[[], None],
        on_text: OnText | None,
    ) -> list[Answer]:
        """An answer to each prompt, in order: those that are known under their keys, and the others bought."""
        known = await self._results.find(job.caller.tenant, keys)
        answers = {key: committed.answer for key, committed in known.items()}
        # The same text may stand in a document twice: one call answers both.
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in answers}
        for _ in range(len(prompts) - len(missing)):
            done()
        orders = [job.order(prompt, key) for key, prompt in missing.items()]
        answers.update(await self._buy(orders, bill, done, on_text))
        return [answers[key] for key in keys]

    async def _buy(
        self, orders: Sequence[Order], bill: Bill, done: Callable[[], None], on_text: OnText | None
    ) -> Mapping[bytes, Answer]:
        """Buys at most FAN_OUT at once.

        After a failure no further call is taken up, but those under way end: they are being paid for, and what they
        answer is there for the next try.
        """
        answers: dict[bytes, Answer] = {}
        failures: list[Exception] = []
        waiting = iter(orders)

        async def worker() -> None:
            for order in waiting:
                if failures:
                    return
                try:
                    paid = await self._paid.make(order, on_text)
                except Exception as exc:  # noqa: BLE001  # raised below, when the others have ended
                    failures.append(exc)
                    return
                bill.calls.append(paid)
                answers[order.key] = paid.answer
                done()

        await asyncio.gather(*(worker() for _ in range(min(FAN_OUT, len(orders)))))
        if failures:
            raise failures[0]
        return answers


def _prompt(job: Job, stage: Stage, *, chunk: Chunk | None = None, claims: Part = ()) -> Prompt:
    sentences = job.options.length.value
    return Prompt(stage, job.options, job.model.short_name, sentences, chunk=chunk, claims=claims)


def _groups(job: Job, parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Neighbouring parts, as many together as one call can take."""
    group: list[Part] = []
    for part in parts:
        if group and (len(group) == MAX_PARTS or not _fits(job, _joined([*group, part]))):
            yield group
            group = []
        group.append(part)
    yield group


def _joined(group: Sequence[Part]) -> Part:
    return tuple(claim for part in group for claim in part)


def _saying(parts: Sequence[Part]) -> list[Part]:
    """Those that say anything."""
    return [part for part in parts if part]


def _fits(job: Job, claims: Part) -> bool:
    most = job.model.provider.count(_prompt(job, Stage.REDUCE, claims=claims))
    room = int(job.model.abilities.context_tokens * CONTEXT_SHARE)
    return most.input_tokens + most.output_tokens <= room


def _nothing() -> None:
    """Reductions are not counted as chunks."""
