"""The ports in memory, for tests and for trying things out: each behaves as the real one does, in one process."""

import math
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from services.runtime.call import current_identity
from services.runtime.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    NotFound,
    OutOfRange,
    QuotaViolation,
    ResourceExhausted,
)
from services.summarizer.domain.limits import too_large
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.ports import (
    Backlog,
    Committed,
    DocumentStart,
    DueDelivery,
    Held,
    PageFailed,
)
from services.summarizer.domain.values import Answer, Delivery, Money, Page, Summary, TokenCount, UsageEvent

TOKENS_PER_PRICE = 1_000_000


class MemoryPages:
    """PageSource over documents that are put in by tenant."""

    def __init__(self) -> None:
        self._documents: dict[tuple[str, str], tuple[Page | PageFailed, ...]] = {}
        self.holds: dict[str, str] = {}
        """Documents that are held, by the hold's id."""
        self.processed: list[str] = []
        """Those that were released as processed."""
        self.expiry: dict[str, float] = {}
        """Unix times at which documents expire, where they do."""

    def put(self, tenant: str, document: str, *pages: Page | PageFailed) -> None:
        """Keeps a document."""
        self._documents[tenant, document] = pages

    def delete(self, tenant: str, document: str) -> None:
        """Forgets a document."""
        del self._documents[tenant, document]

    def documents_of(self, tenant: str) -> list[str]:
        """Names of the tenant's documents."""
        return [document for owner, document in self._documents if owner == tenant]

    async def hold(self, document: str, hold_id: str) -> None:
        """NotFound where there is none."""
        self._find(document)
        self.holds[hold_id] = document

    async def release(self, document: str, hold_id: str, *, processed: bool) -> None:
        """Ends a hold."""
        if self.holds.pop(hold_id, None) is not None and processed:
            self.processed.append(document)

    async def exists(self, document: str) -> float | None:
        """When it expires. NotFound where the caller's tenant has no such document."""
        self._find(document)
        return self.expiry.get(document)

    async def pages(
        self, document: str, within: PageRange = ALL_PAGES
    ) -> AsyncGenerator[DocumentStart | Page | PageFailed, None]:
        """The pages in order, DocumentStart first."""
        pages = self._find(document)
        if within.first > len(pages):
            message = f"The document has {len(pages)} pages. Ask for one of them."
            raise OutOfRange("PAGE_OUT_OF_RANGE", message, fields=[FieldViolation("first_page", message)])
        pages = pages[max(0, within.first - 1) : within.last or None]
        yield DocumentStart(len(pages))
        for page in pages:
            yield page if isinstance(page, PageFailed) else _bounded(page)

    def _find(self, document: str) -> tuple[Page | PageFailed, ...]:
        found = self._documents.get((current_identity().tenant, document))
        if found is None:
            raise NotFound("DOCUMENT_NOT_FOUND", f"There is no {document}.")
        return found


def _bounded(page: Page) -> Page | PageFailed:
    return too_large(page.number, words=len(page.words), chars=len(page.text)) or page


class HoldState(Enum):
    """Where a hold is in its life."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"


@dataclass(slots=True)
class Hold:
    """Money set aside, and the arguments it was asked for with."""

    tenant: str
    asked: tuple[str, TokenCount, float, str]
    amount: Money
    state: HoldState = HoldState.HELD
    settled_by: UsageEvent | None = None
    cost: Money | None = None


@dataclass
class MemoryBooks:
    """Books with prices in micro-units for a million tokens, sent and received, or for a page, and an optional hard
    budget."""

    prices: Mapping[str, tuple[int, int]]
    budget_micros: int | None = None
    holds: dict[str, Hold] = field(default_factory=dict)
    events: dict[tuple[str, str], UsageEvent] = field(default_factory=dict)
    """By tenant and event id: what is in the books."""
    by_page: Mapping[str, int] = field(default_factory=dict)

    async def reserve(self, hold_id: str, model: str, most: TokenCount, ttl_s: float, *, job: str = "") -> Held:
        """Sets the highest possible price aside."""
        tenant = current_identity().tenant
        asked = (model, most, ttl_s, job)
        hold = self.holds.get(hold_id)
        if hold is None:
            amount = self._price(model, most)
            self._check_budget(tenant, amount)
            hold = self.holds[hold_id] = Hold(tenant, asked, amount)
        elif hold.asked != asked:
            raise AlreadyExists("HOLD_ID_REUSED", "This hold id was used with other arguments.")
        return Held(hold_id, hold.amount)

    async def settle(self, hold_id: str, event: UsageEvent) -> Money:
        """Records the call and closes the hold."""
        hold = self._hold(hold_id)
        if hold.state is HoldState.RELEASED:
            raise FailedPrecondition("HOLD_RELEASED", "The hold was released.")
        if hold.settled_by is None:
            hold.cost = self._price(event.model, event.tokens)
            hold.settled_by, hold.state = event, HoldState.SETTLED
            self.events[hold.tenant, event.event_id] = event
        elif hold.settled_by != event:
            raise FailedPrecondition("HOLD_ALREADY_SETTLED", "Another usage event settled this hold.")
        assert hold.cost is not None
        return hold.cost

    async def release(self, hold_id: str) -> None:
        """Frees the hold."""
        hold = self._hold(hold_id)
        if hold.state is HoldState.SETTLED:
            raise FailedPrecondition("HOLD_ALREADY_SETTLED", "The call of this hold is in the books.")
        hold.state = HoldState.RELEASED

    async def record(self, events: tuple[UsageEvent, ...]) -> None:
        """Records events that had no hold: each id once."""
        tenant = current_identity().tenant
        for event in events:
            self._price(event.model, event.tokens)
        for event in events:
            self.events.setdefault((tenant, event.event_id), event)

    def held_micros(self) -> int:
        """What open holds set aside."""
        return sum(hold.amount.micros for hold in self.holds.values() if hold.state is HoldState.HELD)

    def settled_micros(self) -> int:
        """What was spent."""
        return sum(hold.cost.micros for hold in self.holds.values() if hold.cost is not None)

    def _hold(self, hold_id: str) -> Hold:
        hold = self.holds.get(hold_id)
        if hold is None or hold.tenant != current_identity().tenant:
            raise NotFound("HOLD_NOT_FOUND", "There is no such hold.")
        return hold

    def _price(self, model: str, tokens: TokenCount) -> Money:
        if model in self.by_page:
            return Money("USD", tokens.pages * self.by_page[model])
        if model not in self.prices:
            raise FailedPrecondition("MODEL_UNPRICED", f"The model {model!r} has no price.")
        sent, received = self.prices[model]
        parts = tokens.input_tokens * sent + tokens.output_tokens * received
        return Money("USD", -(-parts // TOKENS_PER_PRICE))

    def _check_budget(self, tenant: str, amount: Money) -> None:
        spent = self.settled_micros() + self.held_micros()
        if self.budget_micros is not None and spent + amount.micros > self.budget_micros:
            quota = QuotaViolation("budgets/operator", f"hard limit of tenants/{tenant}: {self.budget_micros} micros")
            raise ResourceExhausted("BUDGET_EXCEEDED", "The hard budget has no room.", quota=quota)


class MemoryCache:
    """SummaryCache that forgets when it is told to."""

    def __init__(self) -> None:
        self._summaries: dict[tuple[str, bytes], Summary] = {}

    async def get(self, tenant: str, key: bytes) -> Summary | None:
        """The summary that was put, or None."""
        return self._summaries.get((tenant, key))

    async def put(self, tenant: str, key: bytes, summary: Summary) -> None:
        """Keeps the summary."""
        self._summaries[tenant, key] = summary

    async def purge(self, tenant: str, document: str) -> int:
        """Forgets every summary of the document."""
        own = [at for at, summary in self._summaries.items() if (at[0], summary.document) == (tenant, document)]
        for at in own:
            del self._summaries[at]
        return len(own)

    def clear(self) -> None:
        """Forgets everything."""
        self._summaries.clear()


@dataclass(slots=True)
class _Row:
    delivery: Delivery
    created_s: float
    due_s: float
    attempts: int = 0


class MemoryStore:
    """Results and Outbox in one, as they are in one database; `now_s` is a monotonic clock in seconds."""

    def __init__(self, now_s: Callable[[], float], *, grace_s: float = 5.0) -> None:
        self._now_s = now_s
        self._grace_s = grace_s
        self._results: dict[tuple[str, bytes], Committed] = {}
        self._bought_for: dict[tuple[str, bytes], frozenset[str]] = {}
        self._purges: Counter[tuple[str, str]] = Counter()
        self._outbox: dict[str, _Row] = {}

    async def find(self, tenant: str, keys: Sequence[bytes]) -> Mapping[bytes, Committed]:
        """Those of the keys that have an answer of this tenant."""
        return {key: self._results[tenant, key] for key in keys if (tenant, key) in self._results}

    async def commit(
        self,
        key: bytes,
        answer: Answer,
        delivery: Delivery,
        *,
        generation: int = 0,
        others: Sequence[tuple[str, int]] = (),
    ) -> None:
        """Keeps both; the delivery alone where a document was purged meanwhile."""
        assert delivery.event is not None
        tenant = delivery.caller.tenant
        documents = {delivery.event.document: generation, **dict(others)}
        current = all(self._purges[tenant, name] == number for name, number in documents.items())
        if current and (tenant, key) not in self._results:
            self._results[tenant, key] = Committed(answer, delivery.event.event_id)
            self._bought_for[tenant, key] = frozenset(documents)
        await self.add(delivery)

    async def generation(self, tenant: str, document: str) -> int:
        """How often the document was purged."""
        return self._purges[tenant, document]

    async def purge(self, tenant: str, document: str) -> int:
        """Forgets the answers that were bought for the document."""
        self._purges[tenant, document] += 1
        own = [at for at, names in self._bought_for.items() if at[0] == tenant and document in names]
        for at in own:
            del self._results[at], self._bought_for[at]
        return len(own)

    async def add(self, delivery: Delivery) -> None:
        """Keeps it; one that is there already stays as it is."""
        now = self._now_s()
        self._outbox.setdefault(delivery.hold_id, _Row(delivery, now, now + self._grace_s))

    async def take(self, limit: int, lease_s: float) -> tuple[DueDelivery, ...]:
        """Up to `limit` deliveries that are due, oldest first."""
        now = self._now_s()
        due = sorted((row for row in self._outbox.values() if row.due_s <= now), key=lambda row: row.due_s)[:limit]
        taken = tuple(DueDelivery(row.delivery, row.attempts) for row in due)
        for row in due:
            row.due_s, row.attempts = now + lease_s, row.attempts + 1
        return taken

    async def done(self, hold_id: str) -> None:
        """Forgets it."""
        self._outbox.pop(hold_id, None)

    async def postpone(self, hold_id: str, delay_s: float, reason: str) -> None:
        """Tries again after `delay_s`."""
        if hold_id in self._outbox:
            self._outbox[hold_id].due_s = self._now_s() + delay_s

    async def park(self, hold_id: str, reason: str) -> None:
        """Is never due."""
        await self.postpone(hold_id, math.inf, reason)

    async def backlog(self) -> Backlog:
        """How much is waiting, and for how long."""
        now = self._now_s()
        waiting = [row.created_s for row in self._outbox.values() if row.due_s < math.inf]
        return Backlog(len(waiting), now - min(waiting, default=now), parked=len(self._outbox) - len(waiting))
