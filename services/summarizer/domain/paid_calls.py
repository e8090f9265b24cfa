"""The only way to a provider: money is set aside before a call and accounted for after it, whatever happens."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol, TypeVar

from services.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    PagemeshError,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from services.summarizer.domain.fields_values import AnyPrompt
from services.summarizer.domain.models import Model
from services.summarizer.domain.ports import Books, Committed, Held, Outbox, Results
from services.summarizer.domain.purse import CURRENCY, Purse
from services.summarizer.domain.sealed_prompts import sealed
from services.summarizer.domain.tails import Tails
from services.summarizer.domain.turns import Turn, Turns
from services.summarizer.domain.values import (
    Answer,
    Caller,
    Delivery,
    Money,
    TokenCount,
    UsageEvent,
)

HOLD_TTL_S = 600.0
"""A hold stands longer than the longest call with its retries; one that runs out counts as UNKNOWN, not as free."""

COMMIT_TRIES, COMMIT_PAUSE_S, COMMIT_LONGEST_S = 60, 1.0, 60.0
"""How often, and for how long, an answer for a job is offered to a database that does not take it. A caller who waits
is told at once."""

NOTHING = Money(CURRENCY, 0)

OnText = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Order:
    """One call to make, and for whom. `key` is its content key, `generation` that of its document's results, `purse`
    bounds what its request spends. A call for several documents names none, and has all of them in `others`, each with
    its generation."""

    caller: Caller
    document: str
    model: Model
    prompt: AnyPrompt
    key: bytes
    generation: int = 0
    purse: Purse | None = None
    others: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Paid:
    """An answer and what it cost; without `settled` the cost is what was set aside. Without `bought` somebody else paid
    for it, under that id, while this call waited for its turn."""

    answer: Answer
    event_id: str
    cost: Money
    settled: bool
    bought: bool = True


class Calls(Protocol):
    """What makes calls: for money, or only in thought (see expected_calls.py)."""

    async def make(self, order: Order, on_text: OnText | None = None) -> Paid:
        """One call. With `on_text` the text is told as it is written."""
        ...


class CallState(Enum):
    """What an error tells about the money of its call."""

    FREE = "free"
    """It was never sent, was refused before anything was charged, or nobody charges for it."""
    KNOWN = "known"
    """It failed, but its usage is known."""
    UNKNOWN = "unknown"
    """It may have been charged."""


class PaidCalls:
    """Reserve, call, commit, settle.

    One id names a call everywhere: it is the id of the hold, of the usage event and of the outbox row, so that each
    step may be repeated. After the provider has answered nothing is cancelled any more: the answer is committed and
    settled even if nobody waits for it.
    """

    def __init__(
        self,
        *,
        books: Books,
        results: Results,
        outbox: Outbox,
        turns: Turns,
        tails: Tails,
        new_id: Callable[[], str],
        now_s: Callable[[], float],
        observe: Callable[[Model, str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._books = books
        self._results = results
        self._outbox = outbox
        self._turns = turns
        self._tails = tails
        self._new_id = new_id
        self._now_s = now_s
        self._observe = observe
        self._sleep = sleep

    async def make(self, order: Order, on_text: OnText | None = None) -> Paid:
        """One call. With `on_text` the text is told as it is written.

        Raises what Books.reserve, Provider and Results.commit raise, and FailedPrecondition MAX_COST_EXCEEDED where the
        purse of its request has no room for it; where the ledger cannot be asked, nothing is called.
        """
        if not order.model.abilities.bills_unanswered:
            # Nobody sends a bill: to wait for another's answer would take longer than to make it.
            return await self._make(order, on_text, None)
        turn = await self._turns.wait_for(order.caller.tenant, order.key)
        if isinstance(turn, Committed):
            return Paid(turn.answer, turn.event_id, NOTHING, settled=True, bought=False)
        return await self._make(order, on_text, turn)

    async def _make(self, order: Order, on_text: OnText | None, turn: Turn | None) -> Paid:
        try:
            order, most = await asyncio.to_thread(_sealed, order)
            held = await self._within_purse(order, most)
        except BaseException:
            if turn is not None:
                self._tails.start(self._turns.leave(turn))
            raise
        try:
            answer = await self._ask(order, on_text)
        except asyncio.CancelledError as exc:
            self._observe(order.model, "cancelled")
            self._tails.start(self._leaving(turn, self._account_for_failure(order, held, exc)))
            raise
        except Exception as exc:
            self._observe(order.model, exc.reason if isinstance(exc, PagemeshError) else "INTERNAL")
            await self._tails.finish(self._leaving(turn, self._account_for_failure(order, held, exc)))
            raise
        self._observe(order.model, "ok")
        return await self._tails.finish(self._leaving(turn, self._conclude(order, held, answer)))

    async def _leaving(self, turn: Turn | None, first: Awaitable[T]) -> T:
        """Lets the next buyer have the turn, once `first` is done."""
        try:
            return await first
        finally:
            if turn is not None:
                await self._turns.leave(turn)

    async def _within_purse(self, order: Order, most: TokenCount) -> Held:
        """A hold for which there is room in the purse."""
        while True:
            held = await self._reserve(order, most)
            if order.purse is None:
                return held
            try:
                taken = await order.purse.take(held.hold_id, held.amount)
            except BaseException:
                self._tails.start(self._unused(order, held))
                raise
            if taken:
                return held
            # Others may need it now: it is given back before anything is waited for.
            await self._tails.finish(self._release(Delivery(held.hold_id, order.caller, None)))
            await order.purse.room_for(held.amount)

    async def _unused(self, order: Order, held: Held) -> None:
        """Gives back what nobody will call for."""
        try:
            await self._release(Delivery(held.hold_id, order.caller, None))
        finally:
            await _end(order, held, Money(held.amount.currency, 0))

    async def _reserve(self, order: Order, most: TokenCount) -> Held:
        hold_id = self._new_id()
        try:
            return await self._books.reserve(hold_id, order.model.name, most, HOLD_TTL_S, job=order.caller.job)
        except BaseException as exc:
            if _hold_may_stand(exc):
                # Lost on the way, or cancelled: its call will certainly never be sent.
                self._tails.start(self._release(Delivery(hold_id, order.caller, None)))
            raise

    async def _ask(self, order: Order, on_text: OnText | None) -> Answer:
        provider = order.model.provider
        if on_text is None:
            return await provider.complete(order.prompt)
        async with aclosing(provider.stream(order.prompt)) as parts:
            async for part in parts:
                if isinstance(part, Answer):
                    return part
                on_text(part)
        raise Unavailable("PROVIDER_CUT", "The model's answer broke off. Try again.")

    async def _conclude(self, order: Order, held: Held, answer: Answer) -> Paid:
        delivery = self._delivery(order, held, answer.tokens)
        cost: Money | None = None
        try:
            try:
                await self._commit(order, answer, delivery)
            except PagemeshError:
                # Nobody can say whether it was written. The ledger hears of the call now, and once more if it was.
                cost = await self._settle(delivery)
                if not order.caller.job:
                    raise
                await self._commit_late(order, answer, delivery)
            else:
                cost = await self._settle(delivery)
        finally:
            await self._close(order, held, cost)
        return Paid(answer, held.hold_id, cost or held.amount, settled=cost is not None)

    async def _commit(self, order: Order, answer: Answer, delivery: Delivery) -> None:
        await self._results.commit(order.key, answer, delivery, generation=order.generation, others=order.others)

    async def _commit_late(self, order: Order, answer: Answer, delivery: Delivery) -> None:
        """Again and again, until the database takes it: nobody waits for a job, and what was bought is not to be bought
        once more. To write it twice changes nothing. Raises what the last try raised."""
        end_s = asyncio.get_running_loop().time() + COMMIT_LONGEST_S
        for left in reversed(range(COMMIT_TRIES)):
            await self._sleep(COMMIT_PAUSE_S)
            try:
                await self._commit(order, answer, delivery)
            except (Unavailable, DeadlineExceeded):
                if not left or asyncio.get_running_loop().time() >= end_s:
                    raise
            else:
                return

    async def _account_for_failure(self, order: Order, held: Held, error: BaseException) -> None:
        state = state_of(error, bills_unanswered=order.model.abilities.bills_unanswered)
        if state is CallState.FREE:
            await self._unused(order, held)
        elif state is CallState.KNOWN:
            delivery = self._delivery(order, held, _tokens_of(_metadata_of(error)))
            cost: Money | None = None
            try:
                await self._keep(delivery)
                cost = await self._settle(delivery)
            finally:
                await self._close(order, held, cost)
        else:
            # The hold stands until it runs out and is reconciled; money that may be spent is never freed.
            await _end(order, held, None)

    async def _settle(self, delivery: Delivery) -> Money | None:
        """What it cost; None where the ledger did not answer, which the outbox then goes on asking."""
        assert delivery.event is not None
        try:
            return await self._books.settle(delivery.hold_id, delivery.event)
        except PagemeshError:
            return None

    async def _close(self, order: Order, held: Held, settled: Money | None) -> None:
        """Tells the purse, and strikes the call out of the outbox, in this order: who dies between leaves the outbox to
        tell the purse once more."""
        await _end(order, held, settled)
        if settled is not None:
            self._tails.start(self._outbox.done(held.hold_id))

    async def _release(self, delivery: Delivery) -> None:
        try:
            await self._books.release(delivery.hold_id)
        except PagemeshError:
            await self._keep(delivery)

    async def _keep(self, delivery: Delivery) -> None:
        try:
            await self._outbox.add(delivery)
        except PagemeshError:
            # The database is away too: the hold stands and runs out as UNKNOWN, which is the safe side.
            return

    def _delivery(self, order: Order, held: Held, tokens: TokenCount) -> Delivery:
        event = UsageEvent(
            event_id=held.hold_id,
            model=order.model.name,
            tokens=tokens,
            operation=order.prompt.stage.value,
            document=order.document,
            request_id=order.caller.request_id,
            occurred_at_s=self._now_s(),
            job=order.caller.job,
        )
        return Delivery(held.hold_id, order.caller, event)


def state_of(error: BaseException, *, bills_unanswered: bool) -> CallState:
    """What the end of a call tells about its money, a cancellation too; nothing is FREE that is not known to be.

    `bills_unanswered` is the model's ability of that name.
    """
    metadata = _metadata_of(error)
    if "input_tokens" in metadata and "output_tokens" in metadata:
        return CallState.KNOWN
    if not bills_unanswered or "no" in (metadata.get("sent"), metadata.get("billed")):
        return CallState.FREE
    return CallState.UNKNOWN


def _sealed(order: Order) -> tuple[Order, TokenCount]:
    """The call as it may leave this service, without what personal data it still has, and the most that it can use."""
    if not order.model.abilities.local:
        order = replace(order, prompt=sealed(order.prompt))
    return order, order.model.provider.count(order.prompt)


async def _end(order: Order, held: Held, cost: Money | None) -> None:
    """Tells the purse what the call cost; None where that is not known."""
    if order.purse is not None:
        await order.purse.end(held.hold_id, None if cost is None else cost.micros)


def _hold_may_stand(error: BaseException) -> bool:
    """Whether the ledger may have made the hold although asking for it failed."""
    if isinstance(error, PagemeshError) and error.metadata.get("sent") == "no":
        return False
    refusals = (ResourceExhausted, FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated)
    return not isinstance(error, refusals)


def _metadata_of(error: BaseException) -> Mapping[str, str]:
    return error.metadata if isinstance(error, PagemeshError) else {}


def _tokens_of(metadata: Mapping[str, str]) -> TokenCount:
    tokens = TokenCount(int(metadata["input_tokens"]), int(metadata["output_tokens"]))
    return replace(tokens, pages=int(metadata.get("pages", "0")))
