"""What the use cases need from outside."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from services.summarizer.domain.values import Answer, Money, Page, Prompt, TokenCount, UsageEvent


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model can do. `context_tokens` bounds input and output together."""

    context_tokens: int
    max_output_tokens: int
    writes: bool
    """False for models that choose sentences of the document: they know no other language and quote exactly."""


class Provider(Protocol):
    """A maker of text. One instance serves all models of its name.

    Errors of `complete` and `stream`: Unavailable (down, 5xx, cut stream, unreadable answer), ResourceExhausted with
    `retry_after_s` (429), DeadlineExceeded, InvalidArgument (the provider refused the input), PermissionDenied (its
    credential is refused). Each carries `metadata["sent"]` = "no" only where the request certainly never left.
    """

    name: str

    def abilities(self, model: str) -> Abilities:
        """What the model can do. NotFound for a model that is not served."""
        ...

    def count(self, prompt: Prompt) -> TokenCount:
        """The most that the call can use: exact or upper bound of the input, bound of the output."""
        ...

    async def complete(self, prompt: Prompt) -> Answer:
        """One call, one answer. Cancelling the task cancels the call."""
        ...

    def stream(self, prompt: Prompt) -> AsyncIterator[str | Answer]:
        """The same, with the text as it is written; the Answer is the last item. Closing the iterator ends the call."""
        ...


@dataclass(frozen=True, slots=True)
class DocumentStart:
    """First item of a reading."""

    page_count: int


@dataclass(frozen=True, slots=True)
class PageFailed:
    """A page that could not be read."""

    number: int
    reason: str


class PageSource(Protocol):
    """Where pages come from. Errors: NotFound, FailedPrecondition (encrypted, no pages, not readable), Unavailable."""

    async def exists(self, document: str) -> None:
        """NotFound where the caller's tenant has no such document."""
        ...

    def pages(self, document: str) -> AsyncIterator[DocumentStart | Page | PageFailed]:
        """The pages in order, DocumentStart first. Closing the iterator stops the parser."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """Money set aside."""

    hold_id: str
    amount: Money


class Books(Protocol):
    """The ledger. Errors: ResourceExhausted (budget), FailedPrecondition (no price), Unavailable."""

    async def reserve(self, hold_id: str, model: str, most: TokenCount, ttl_s: float) -> Held:
        """Sets the highest possible price aside. Idempotent by hold id."""
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
