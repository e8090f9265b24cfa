"""What the use cases need from outside."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from services.summarizer.domain.fields_values import AnyPrompt
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.values import (
    Answer,
    Caller,
    Delivery,
    Money,
    Page,
    Summary,
    TokenCount,
    UsageEvent,
)

Deadline = Callable[[], float | None]
"""When somebody stops waiting, in the event loop's time, as it is now known; None for never."""


def no_deadline() -> None:
    """For work that nobody waits for."""


class ActAs(Protocol):
    """Makes outgoing calls inside a block speak for a caller and end by a deadline."""

    def __call__(self, caller: Caller, deadline: Deadline = no_deadline) -> AbstractContextManager[None]:
        """The block; it knows nothing of the deadline of a call that it may stand in."""
        ...


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model can do. `context_tokens` bounds input and output together."""

    context_tokens: int
    max_output_tokens: int
    writes: bool
    """False for models that choose sentences of the document: they know no other language, quote exactly."""
    bills_unanswered: bool
    """Whether a call that was given up, or broke off, may have to be paid: so it is wherever somebody sends a bill."""
    local: bool = False
    """Whether no text leaves this service for it."""
    counted_share: float = 1.0
    """Tokens that a text is expected to have for each that `Provider.count` counts; less where it counts from above."""
    call_excess: int = 0
    """Tokens that it adds to a call to be on the safe side and that are not expected; `page_excess` to each page."""
    page_excess: int = 0


class Provider(Protocol):
    """A maker of text. One instance serves all models of its name.

    Errors of `complete` and `stream`: Unavailable (down, 5xx, cut stream, unreadable answer),
    ResourceExhausted with `retry_after_s` (429), DeadlineExceeded, InvalidArgument (the provider refused the
    input), FailedPrecondition (it refuses this deployment's credential). Each carries `metadata["sent"]` = "no"
    only where the request certainly never left, and `metadata["billed"]` = "no" where the provider refused it
    before any model worked on it. Where a call failed after its usage was known, `metadata["input_tokens"]` and
    `metadata["output_tokens"]` tell it.
    """

    name: str

    version: str
    """Changes whenever the same prompt would be answered otherwise: wording, algorithm, its settings."""

    def models(self) -> tuple[str, ...]:
        """Names of the models that are served, for people to choose from; the best to recommend first."""
        ...

    def abilities(self, model: str) -> Abilities:
        """What the model can do. NotFound for a model that is not served."""
        ...

    def count(self, prompt: AnyPrompt) -> TokenCount:
        """The most that the call can use: exact or upper bound of the input, bound of the output.

        It may take a while for a long text, and is then called in a thread.
        """
        ...

    async def complete(self, prompt: AnyPrompt) -> Answer:
        """One call, one answer. Cancelling the task cancels the call."""
        ...

    def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
        """The same, with the text as it is written, the Answer last. Closing the iterator ends the call."""
        ...


@dataclass(frozen=True, slots=True)
class DocumentStart:
    """First item of a reading: how many pages it has."""

    page_count: int


@dataclass(frozen=True, slots=True)
class PageFailed:
    """A page that could not be read; `words` and `chars` say how much it holds, where that is known."""

    number: int
    reason: str
    words: int = 0
    chars: int = 0


class PageSource(Protocol):
    """Where pages come from. One that is too large for a summary (limits.py) comes as PageFailed.

    Errors: NotFound, FailedPrecondition (encrypted, no pages, not readable), Unavailable.
    """

    async def exists(self, document: str) -> float | None:
        """When it expires, in Unix time; None where it does not. NotFound where the caller's tenant has none such."""
        ...

    async def hold(self, document: str, hold_id: str) -> None:
        """Keeps the document from expiring until `release`, or for a quarter of an hour. NotFound as in `exists`."""
        ...

    async def release(self, document: str, hold_id: str, *, processed: bool) -> None:
        """Ends a hold. With `processed` something was made of the document, or never can be: an ephemeral one goes."""
        ...

    def pages(
        self, document: str, within: PageRange = ALL_PAGES
    ) -> AsyncGenerator[DocumentStart | Page | PageFailed, None]:
        """The pages of the range in order, DocumentStart first. Closing the iterator stops the parser. Also raises
        OutOfRange PAGE_OUT_OF_RANGE."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """Money set aside."""

    hold_id: str
    amount: Money


class Books(Protocol):
    """The ledger. Errors: ResourceExhausted (budget), FailedPrecondition (no price), Unavailable."""

    async def reserve(self, hold_id: str, model: str, most: TokenCount, ttl_s: float, *, job: str = "") -> Held:
        """Sets the highest possible price aside, on account of `job` too. Idempotent by hold id."""
        ...

    async def settle(self, hold_id: str, event: UsageEvent) -> Money:
        """Records the call and closes the hold; answers what it cost. Idempotent."""
        ...

    async def release(self, hold_id: str) -> None:
        """Frees the hold of a call that was certainly never sent. Idempotent."""
        ...

    async def record(self, events: tuple[UsageEvent, ...]) -> None:
        """Records events that had no hold, such as answers from the cache."""
        ...


class SummaryCache(Protocol):
    """Summaries that were made a short time ago. It may forget at any moment, and then only speed is lost.

    Neither `get` nor `put` raises: a cache that is away is a cache that knows nothing.
    """

    async def get(self, tenant: str, key: bytes) -> Summary | None:
        """The summary that was put under the key for the same tenant, or None."""
        ...

    async def put(self, tenant: str, key: bytes, summary: Summary) -> None:
        """Keeps the summary for a while."""
        ...

    async def purge(self, tenant: str, document: str) -> int:
        """Forgets every summary of the document; answers how many. Raises Unavailable where that is not certain."""
        ...


@dataclass(frozen=True, slots=True)
class Committed:
    """An answer that was paid for."""

    answer: Answer
    event_id: str


class Results(Protocol):
    """Answers that were paid for, with what the ledger has yet to hear of them.

    Errors: Unavailable, DeadlineExceeded.
    """

    async def find(self, tenant: str, keys: Sequence[bytes]) -> Mapping[bytes, Committed]:
        """Those of the keys that have an answer."""
        ...

    async def commit(
        self,
        key: bytes,
        answer: Answer,
        delivery: Delivery,
        *,
        generation: int = 0,
        others: Sequence[tuple[str, int]] = (),
    ) -> None:
        """Keeps the answer and the delivery in one transaction. An answer that is there already stays; one for a
        document that was purged since `generation` was asked is not kept, and its delivery is. `others` are further
        documents that the answer was made of, with the generation of each."""
        ...

    async def generation(self, tenant: str, document: str) -> int:
        """How often the document was purged. What is made of it afterwards is committed with this."""
        ...

    async def purge(self, tenant: str, document: str) -> int:
        """Forgets the answers that were bought for the document, alone or with others; answers how many."""
        ...


class Outbox(Protocol):
    """What the ledger must hear, kept until it has acknowledged it. Errors: Unavailable, DeadlineExceeded."""

    async def add(self, delivery: Delivery) -> None:
        """Keeps it; one that is there already stays as it is."""
        ...

    async def take(self, limit: int, lease_s: float) -> tuple["DueDelivery", ...]:
        """Up to `limit` deliveries that are due, oldest first; no one else is given them for `lease_s`."""
        ...

    async def done(self, hold_id: str) -> None:
        """The ledger has acknowledged it. Unknown ids are fine."""
        ...

    async def postpone(self, hold_id: str, delay_s: float, reason: str) -> None:
        """Tries again after `delay_s`; `reason` is for the operator who looks."""
        ...

    async def park(self, hold_id: str, reason: str) -> None:
        """Keeps it, but tries it no more until an operator says so."""
        ...

    async def backlog(self) -> "Backlog":
        """How much is waiting."""
        ...


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A delivery and how often it was tried before."""

    delivery: Delivery
    attempts: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the ledger has not acknowledged yet; `parked` deliveries are in neither of the other two."""

    depth: int
    oldest_age_s: float
    parked: int
