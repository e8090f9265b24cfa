"""What every WebhookStore and DeliveryStore promises, in memory and in Postgres, and how messages are taken in turn."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from services.database.pool import Pool, open_pool
from services.ledger.adapters import postgres_deliveries, postgres_webhooks
from services.ledger.adapters.memory import MemoryLedger, MemoryUsage, TenantRow
from services.ledger.adapters.memory_usage import MemoryUsageReports
from services.ledger.adapters.memory_webhooks import MemoryDeliveries, MemoryWebhooks
from services.ledger.adapters.postgres_deliveries import PostgresDeliveries
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.adapters.postgres_usage_reports import PostgresUsageReports
from services.ledger.adapters.postgres_webhooks import PostgresOutbox, PostgresWebhooks
from services.ledger.domain.ports import UsageReports, UsageStore
from services.ledger.domain.values import Caller
from services.ledger.domain.webhook_messages import DeliveryState, DeliveryStore, Event, WebhookMessages
from services.ledger.domain.webhooks import Webhook, WebhookSecrets, WebhookStore
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound
from tests.unit.ledger.samples import NOW, STORES, a_record, an_event

JOB = f"jobs/{'a' * 32}"
OWNER = Caller("acme", "apiKeys/0000000000000000", frozenset())


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Desk:
    hooks: WebhookStore
    deliveries: DeliveryStore
    usage: UsageStore
    messages: WebhookMessages
    clock: Clock

    async def hook(self, name: str, *types: str, tenant: str = "acme") -> None:
        webhook_id = name.ljust(16, "0")
        assert await self.hooks.add(Webhook(tenant, webhook_id, "https://example.com/hook", NOW, types))


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    opened = await open_pool(database("ledger"), name="test", max_size=4)
    for tenant in ("acme", "other"):
        await PostgresTenants(opened).ensure(tenant, tenant, NOW)
    yield opened
    await opened.close()


@pytest.fixture(params=STORES)
def desk(request: pytest.FixtureRequest) -> Desk:
    clock = Clock()
    hooks: WebhookStore
    deliveries: DeliveryStore
    reports: UsageReports
    usage: UsageStore
    if request.param == "memory":
        ledger, known = MemoryLedger(tenants={"acme": TenantRow("acme", NOW)}), MemoryWebhooks()
        hooks, deliveries, reports, usage = (
            known,
            MemoryDeliveries(known),
            MemoryUsageReports(ledger),
            MemoryUsage(ledger),
        )
    else:
        pool: Pool = request.getfixturevalue("pool")
        hooks, deliveries = PostgresWebhooks(pool), PostgresDeliveries(pool)
        reports, usage = PostgresUsageReports(pool), PostgresUsage(pool)
    messages = WebhookMessages(store=deliveries, usage=reports, clock=clock)
    return Desk(hooks, deliveries, usage, messages, clock)


def event(number: int = 1, *, tenant: str = "acme", kind: str = "job.succeeded", **changes: Any) -> Event:
    return replace(Event(tenant, f"{number:032x}-1", kind, NOW, {"tenant": f"tenants/{tenant}"}), **changes)


async def test_each_webhook_is_told_once_of_what_it_wants(desk: Desk) -> None:
    await desk.hook("a", "job.succeeded", "job.failed")
    await desk.hook("b", "job.succeeded")
    await desk.hook("c", "budget.threshold_reached")
    await desk.hook("d", "job.succeeded", tenant="other")
    events = [event(1), event(2, kind="job.failed"), event(3, kind="batch.ended"), event(1, tenant="other")]
    assert await desk.messages.publish(events) == 4
    assert await desk.messages.publish([*events, event(4, kind="job.failed")]) == 1
    found, _ = await desk.messages.list(OWNER, None, 0, "")
    assert sorted((d.webhook_id[0], d.event_type) for d in found) == [
        ("a", "job.failed"),
        ("a", "job.failed"),
        ("a", "job.succeeded"),
        ("b", "job.succeeded"),
    ]
    assert {(d.tenant, d.state, d.attempts) for d in found} == {("acme", DeliveryState.PENDING, 0)}


async def test_a_webhook_that_is_deleted_is_told_nothing_more(desk: Desk) -> None:
    await desk.hook("a", "job.succeeded")
    await desk.messages.publish([event(1)])
    assert await desk.hooks.delete("acme", "a".ljust(16, "0"), NOW)
    assert await desk.messages.publish([event(2)]) == 0
    ((dead,), _) = await desk.messages.list(OWNER, DeliveryState.DEAD, 0, "")
    assert dead.last_failure == "the webhook was deleted"
    with pytest.raises(FailedPrecondition, match="DELIVERY_NOT_RETRYABLE"):
        await desk.messages.retry(OWNER, dead.delivery_id)


async def test_what_a_job_cost_is_told_as_the_books_have_it(desk: Desk) -> None:
    await desk.hook("a", "job.succeeded")
    records = [
        a_record(replace(an_event(after_s=n), job=job), cost_micros=cost)
        for n, (job, cost) in enumerate([(JOB, 700), (JOB, 40), (f"jobs/{'b' * 32}", 9)])
    ]
    await desk.usage.record(records)
    await desk.messages.publish([event(1, job=JOB)])
    ((told,), _) = await desk.messages.list(OWNER, None, 0, "")
    body = json.loads(told.body)
    assert (body["type"], body["timestamp"]) == ("job.succeeded", NOW.isoformat())
    assert body["data"] == {"tenant": "tenants/acme", "currency": "USD", "cost_micros": 740}


async def test_messages_are_listed_newest_first_and_by_state(desk: Desk) -> None:
    await desk.hook("a", "job.succeeded")
    for number in range(5):
        desk.clock.now = NOW + timedelta(seconds=number // 2)
        await desk.messages.publish([event(number)])
    whole, token = await desk.messages.list(OWNER, None, 0, "")
    assert (len(whole), token) == (5, "")
    assert [d.create_time for d in whole] == sorted((d.create_time for d in whole), reverse=True)
    parts, token = await desk.messages.list(OWNER, None, 2, "")
    parts = [*parts]
    while token:
        with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
            await desk.messages.list(OWNER, DeliveryState.DEAD, 2, token)
        more, token = await desk.messages.list(OWNER, None, 2, token)
        parts += more
    assert parts == whole
    assert await desk.messages.list(OWNER, DeliveryState.DEAD, 0, "") == ([], "")
    assert await desk.messages.list(replace(OWNER, tenant="other"), None, 0, "") == ([], "")


async def test_what_was_never_written_is_not_found_and_what_waits_is_not_sent_again(desk: Desk) -> None:
    await desk.hook("a", "job.succeeded")
    await desk.messages.publish([event(1)])
    ((waiting,), _) = await desk.messages.list(OWNER, None, 0, "")
    with pytest.raises(FailedPrecondition, match="DELIVERY_NOT_RETRYABLE"):
        await desk.messages.retry(OWNER, waiting.delivery_id)
    for caller, delivery_id in ((replace(OWNER, tenant="other"), waiting.delivery_id), (OWNER, an_event().event_id)):
        with pytest.raises(NotFound, match="DELIVERY_NOT_FOUND"):
            await desk.messages.retry(caller, delivery_id)


@pytest.fixture
def real(pool: Pool) -> tuple[Desk, PostgresOutbox]:
    clock, deliveries = Clock(), PostgresDeliveries(pool)
    messages = WebhookMessages(store=deliveries, usage=PostgresUsageReports(pool), clock=clock)
    desk = Desk(PostgresWebhooks(pool), deliveries, PostgresUsage(pool), messages, clock)
    return desk, PostgresOutbox(pool, WebhookSecrets("p" * 32))


async def test_messages_are_taken_in_turns_of_their_tenants(real: tuple[Desk, PostgresOutbox]) -> None:
    desk, outbox = real
    later = NOW + timedelta(seconds=1)
    for tenant in ("acme", "other"):
        await desk.hook("a", "job.succeeded", tenant=tenant)
    await desk.messages.publish([event(number) for number in range(50)])
    desk.clock.now = later
    await desk.messages.publish([event(number, tenant="other") for number in range(2)])
    until = later + timedelta(minutes=1)
    taken = await outbox.take(later, until, 64, each=4)
    assert sorted(message.tenant for message in taken) == ["acme"] * 4 + ["other"] * 2
    assert {message.attempts for message in taken} == {1}
    assert [m.tenant for m in await outbox.take(later, until, 64, each=4, busy={"acme"})] == []
    assert len(await outbox.take(later, until, 3, each=4)) == 3


async def test_a_dead_letter_is_sent_again_under_its_id(real: tuple[Desk, PostgresOutbox]) -> None:
    desk, outbox = real
    await desk.hook("a", "job.succeeded")
    await desk.messages.publish([event(1)])
    (message,) = await outbox.take(NOW, NOW + timedelta(minutes=1), 64, each=4)
    await outbox.dead(message, "no answer in time", NOW)
    ((dead,), _) = await desk.messages.list(OWNER, DeliveryState.DEAD, 0, "")
    assert (dead.last_failure, dead.attempts, dead.end_time) == ("no answer in time", 1, NOW)
    again = await desk.messages.retry(OWNER, dead.delivery_id)
    assert (again.state, again.attempts, again.end_time, again.last_failure) == (DeliveryState.PENDING, 0, None, "")
    (second,) = await outbox.take(NOW, NOW + timedelta(minutes=1), 64, each=4)
    assert (second.message_id, second.body) == (message.message_id, message.body)


def test_lists_and_turns_have_their_indexes(database: Callable[[str], str]) -> None:
    with psycopg.connect(database("ledger"), autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger.webhook_deliveries NO FORCE ROW LEVEL SECURITY")
        connection.execute(
            "INSERT INTO ledger.webhook_deliveries SELECT 't' || n % 200, gen_random_uuid(), 'w', '',"
            " CASE n % 10 WHEN 0 THEN 'PENDING' ELSE 'DEAD' END, 0, now(), now(), NULL, ''"
            " FROM generate_series(1, 20000) n"
        )
        connection.execute("ALTER TABLE ledger.webhook_deliveries FORCE ROW LEVEL SECURITY")
        connection.execute("VACUUM ANALYZE ledger.webhook_deliveries")
        connection.execute("SELECT set_config('pagemesh.tenant', 't7', false)")
        values = {"tenant": "t7", "state": "DEAD", "limit": 5, "time": NOW, "id": an_event().event_id}
        listed, behind = postgres_deliveries.LIST, postgres_deliveries.BEHIND
        for statement, index in (
            (listed.format("", behind), "webhook_deliveries_by_time"),
            (listed.format(postgres_deliveries.IN_STATE, behind), "webhook_deliveries_by_state"),
        ):
            plan = _plan(connection, statement, values)
            assert index in plan, plan
            assert "Sort" not in plan, plan
        connection.execute("SELECT set_config('pagemesh.across', 'webhooks', false)")
        values = {"now": NOW, "until": NOW, "limit": 64, "each": 4, "busy": []}
        plan = _plan(connection, postgres_webhooks.TAKE, values)
        assert plan.count("webhook_deliveries_in_turn") >= 3, plan
        assert "Seq Scan on webhook_deliveries" not in plan, plan


def _plan(connection: "psycopg.Connection[tuple[object, ...]]", statement: str, values: dict[str, Any]) -> str:
    rows = connection.execute(f"EXPLAIN {statement}".encode(), values).fetchall()
    return "\n".join(str(line) for (line,) in rows)
