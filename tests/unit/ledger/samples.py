"""Holds, events and stores for tests."""

import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.database.pool import Pool, open_pool
from services.ledger.adapters.memory import (
    MemoryHolds,
    MemoryKeys,
    MemoryLedger,
    MemoryTenants,
    MemoryUsage,
)
from services.ledger.adapters.memory_budgets import MemoryBudgets
from services.ledger.adapters.memory_identity import (
    MemoryProjects,
    MemoryQuotas,
    MemoryTenantDirectory,
    MemoryUsers,
)
from services.ledger.adapters.memory_prices import MemoryPrices
from services.ledger.adapters.memory_usage import MemoryUsageReports
from services.ledger.adapters.postgres_budgets import PostgresBudgets
from services.ledger.adapters.postgres_deliveries import PostgresDeliveries
from services.ledger.adapters.postgres_holds import PostgresHolds
from services.ledger.adapters.postgres_identity import PostgresKeys, PostgresTenants
from services.ledger.adapters.postgres_members import PostgresProjects, PostgresUsers
from services.ledger.adapters.postgres_prices import PostgresPrices
from services.ledger.adapters.postgres_quotas import PostgresQuotas
from services.ledger.adapters.postgres_tenants import PostgresTenantDirectory
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.adapters.postgres_usage_reports import PostgresUsageReports
from services.ledger.adapters.postgres_webhooks import PostgresWebhooks
from services.ledger.api.ledger_servicer import LedgerServicer
from services.ledger.domain.books import Books
from services.ledger.domain.budget_ports import BudgetStore
from services.ledger.domain.budgeting import Budgets
from services.ledger.domain.identity_ports import ProjectStore, QuotaStore, TenantDirectory, UserStore
from services.ledger.domain.key_ring import KeyRing
from services.ledger.domain.keys import KeyHasher, KeyMint
from services.ledger.domain.ports import HoldStore, KeyStore, PriceBooks, TenantStore, UsageReports, UsageStore
from services.ledger.domain.prices import PriceLists
from services.ledger.domain.pricing import Price, PriceBook
from services.ledger.domain.usage_reports import Reports
from services.ledger.domain.values import Caller, Hold, HoldState, Tokens, UsageEvent, UsageRecord
from services.ledger.domain.webhook_messages import WebhookMessages
from services.ledger.domain.webhooks import Webhooks, WebhookSecrets

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODEL = "offline/lexrank"
BOOK = PriceBook(1, {MODEL: Price(20_000, 0), "mistral/mistral-large-latest": Price(2_000_000, 6_000_000)})
ACME = Caller("acme", "apiKeys/0000000000000000", frozenset({"usage.read"}))
OTHER = Caller("other", "apiKeys/1111111111111111", frozenset({"usage.read"}))
STORES = ("memory", "postgres")


class FixedClock:
    """A clock that tests move."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Stores:
    """Every store over the same books; the tenants acme and other exist."""

    holds: HoldStore
    usage: UsageStore
    reports: UsageReports
    prices: PriceBooks
    keys: KeyStore
    tenants: TenantStore
    budgets: BudgetStore
    directory: TenantDirectory
    projects: ProjectStore
    users: UserStore
    quotas: QuotaStore


@contextlib.asynccontextmanager
async def open_stores(kind: str, database: Callable[[str], str]) -> AsyncIterator[Stores]:
    """The stores in memory, or in a fresh database."""
    async with contextlib.AsyncExitStack() as stack:
        if kind == "memory":
            ledger = MemoryLedger()
            stores = Stores(
                MemoryHolds(ledger),
                MemoryUsage(ledger),
                MemoryUsageReports(ledger),
                MemoryPrices({1: BOOK}),
                MemoryKeys(ledger),
                MemoryTenants(ledger),
                MemoryBudgets(ledger),
                MemoryTenantDirectory(ledger),
                MemoryProjects(ledger),
                MemoryUsers(ledger),
                MemoryQuotas(),
            )
        else:
            pool = await open_pool(database("ledger"), name="test", max_size=16)
            stack.push_async_callback(pool.close)
            holds = PostgresHolds(pool)
            stack.push_async_callback(holds.close)
            stores = Stores(
                holds,
                PostgresUsage(pool),
                PostgresUsageReports(pool),
                PostgresPrices(pool, clock=lambda: NOW, monotonic_s=time.monotonic),
                PostgresKeys(pool),
                PostgresTenants(pool),
                PostgresBudgets(pool),
                PostgresTenantDirectory(pool),
                PostgresProjects(pool),
                PostgresUsers(pool),
                PostgresQuotas(pool),
            )
        for tenant in (ACME.tenant, OTHER.tenant):
            await stores.tenants.ensure(tenant, tenant, NOW)
        yield stores


HASHER = KeyHasher("p" * 32)


def a_key_ring(stores: Stores, clock: FixedClock, *, scopes: frozenset[str]) -> KeyRing:
    """The key ring over those stores; `scopes` are all that there are."""
    return KeyRing(
        keys=stores.keys, users=stores.users, hasher=HASHER, mint=KeyMint(), clock=clock, known_scopes=scopes
    )


def a_hold(
    amount_micros: int = 1000, *, tenant: str = "acme", hold_id: uuid.UUID | None = None, ttl_s: float = 60
) -> Hold:
    """A new hold, made NOW."""
    return Hold(
        tenant=tenant,
        hold_id=hold_id or uuid.uuid4(),
        state=HoldState.HELD,
        model=MODEL,
        most=Tokens(50_000, 0),
        amount_micros=amount_micros,
        price_book_version=1,
        actor="apiKeys/0000000000000000",
        create_time=NOW,
        expire_time=NOW + timedelta(seconds=ttl_s),
    )


def an_event(
    event_id: uuid.UUID | None = None,
    *,
    sent: int = 50_000,
    after_s: float = 0,
    document: str = "",
    request_id: str = "",
    tags: Mapping[str, str] | None = None,
) -> UsageEvent:
    """An event that occurred `after_s` after NOW."""
    return UsageEvent(
        event_id=event_id or uuid.uuid4(),
        model=MODEL,
        tokens=Tokens(sent, 7),
        operation="summarize.map",
        document=document,
        request_id=request_id,
        occur_time=NOW + timedelta(seconds=after_s),
        tags=tags or {},
    )


def a_record(
    event: UsageEvent, *, tenant: str = "acme", cost_micros: int = 900, hold_id: uuid.UUID | None = None
) -> UsageRecord:
    """The event in the books."""
    return UsageRecord(tenant, event, cost_micros, 1, hold_id, "apiKeys/0000000000000000", NOW)


def a_servicer(pool: Pool) -> LedgerServicer:
    """The whole service over a real database, by the clock on the wall."""

    def now() -> datetime:
        return datetime.now(UTC)

    prices = PostgresPrices(pool, clock=now, monotonic_s=time.monotonic)
    hooks = WebhookSecrets("p" * 32)
    return LedgerServicer(
        Books(holds=PostgresHolds(pool), usage=PostgresUsage(pool), prices=prices, clock=now),
        Reports(usage=PostgresUsageReports(pool), clock=now),
        Budgets(store=PostgresBudgets(pool), clock=now),
        PriceLists(prices),
        Webhooks(store=PostgresWebhooks(pool), hooks=hooks, clock=now, fault_of_url=lambda _: ""),
        messages=WebhookMessages(store=PostgresDeliveries(pool), usage=PostgresUsageReports(pool), clock=now),
    )
