"""What every keeper of leases, receipts and due documents promises, in memory and in Postgres."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import psycopg
import pytest

from services.database.pool import open_pool
from services.extractor.adapters.memory import MemoryDocuments
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.adapters.postgres_lifecycle import PostgresLifecycle
from services.extractor.domain.documents import Cursor, Document
from services.extractor.domain.keeping import Backlog, Erasure, Lease, Leases, Lifecycle, Receipts
from services.extractor.domain.ports import DocumentRepository
from services.extractor.domain.receipts import Cause, DeletionReceipt
from services.extractor.domain.retention import Retention, Term
from tests.contract.test_extractor_documents import NOW, a_document, erase, insert

HOUR, SECOND = dt.timedelta(hours=1), dt.timedelta(seconds=1)


class Keeper(Leases, Lifecycle, Receipts, Protocol):
    """All three, as they are one in each adapter."""


@dataclass
class World:
    documents: DocumentRepository
    keeper: Keeper


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        both = MemoryDocuments()
        yield World(both, both)
        return
    database: Callable[[str], str] = request.getfixturevalue("database")
    pool = await open_pool(database("extractor"), name="test")
    try:
        yield World(PostgresDocuments(pool), PostgresLifecycle(pool))
    finally:
        await pool.close()


def due(number: int, *, tenant: str = "acme", retention: Retention = Retention.TEMPORARY) -> Document:
    """A document that expires in as many seconds as its number."""
    term = Term(retention, NOW + number * SECOND)
    return replace(a_document(number, tenant=tenant), term=term)


def lease(document: Document, number: int = 1) -> Lease:
    return Lease(document.tenant, document.id, f"00000000-0000-4000-8000-{number:012d}")


def receipt(number: int, *, tenant: str = "acme", at: dt.datetime = NOW) -> DeletionReceipt:
    document = a_document(number)
    return DeletionReceipt(
        f"{number:032x}", tenant, document.id, document.sha256, 5, 1, 2, 3, 4, Cause.EXPIRED, at, "apiKeys/me"
    )


async def keep(world: World, *receipts: DeletionReceipt) -> None:
    for value in receipts:
        async with world.documents.locked(value.tenant, value.document_id) as record:
            await record.add_receipt(value)


async def cause_of(world: World, document: Document) -> Cause | None:
    async with world.documents.locked(document.tenant, document.id) as record:
        erasing = await record.read_erased(by=NOW + 999 * HOUR)
    return None if erasing is None else erasing.cause


async def test_what_has_expired_is_hidden_for_all_tenants(world: World) -> None:
    ours, theirs, later = due(1), due(2, tenant="other"), due(3)
    await insert(world.documents, ours, theirs, later, a_document(4))
    assert await world.keeper.expire(now=NOW + 2 * SECOND, limit=10) == 2
    assert await world.keeper.expire(now=NOW + 2 * SECOND, limit=10) == 0
    assert await world.documents.get("acme", ours.id) is None
    assert await world.documents.get("other", theirs.id) is None
    assert await world.documents.get("acme", later.id) == later
    assert await cause_of(world, ours) is Cause.EXPIRED


async def test_no_more_than_asked_for(world: World) -> None:
    await insert(world.documents, *(due(number) for number in range(1, 6)))
    assert [await world.keeper.expire(now=NOW + HOUR, limit=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_what_is_held_does_not_expire(world: World) -> None:
    document, free = due(1), due(2)
    await insert(world.documents, document, free)
    assert await world.keeper.hold(lease(document), until=NOW + HOUR)
    assert await world.keeper.hold(lease(document, 2), until=NOW + 2 * HOUR)
    assert await world.keeper.expire(now=NOW + HOUR, limit=1) == 1, "the held one is not in the way of the free one"
    await world.keeper.release(lease(document, 2), processed_at=None)
    assert await world.keeper.expire(now=NOW + HOUR - SECOND, limit=10) == 0
    assert await world.keeper.expire(now=NOW + HOUR, limit=10) == 1


async def test_a_hold_is_renewed(world: World) -> None:
    document = due(1)
    await insert(world.documents, document)
    assert await world.keeper.hold(lease(document), until=NOW + SECOND)
    assert await world.keeper.hold(lease(document), until=NOW + HOUR)
    assert await world.keeper.expire(now=NOW + HOUR - SECOND, limit=10) == 0
    assert await world.keeper.expire(now=NOW + HOUR, limit=10) == 1


async def test_only_what_is_there_can_be_held(world: World) -> None:
    document, other = due(1), due(1, tenant="other")
    await insert(world.documents, document)
    assert not await world.keeper.hold(lease(other), until=NOW + HOUR)
    assert not await world.keeper.hold(lease(due(2)), until=NOW + HOUR)
    await erase(world.documents, document)
    assert not await world.keeper.hold(lease(document), until=NOW + HOUR)
    await world.keeper.release(lease(document), processed_at=NOW)


async def test_a_hold_waits_for_whoever_hides_the_document(world: World) -> None:
    document = due(1)
    await insert(world.documents, document)
    async with world.documents.locked("acme", document.id) as record:
        await record.mark_erased(NOW, cause=Cause.REQUESTED, actor="", until=NOW)
        assert await record.read() is None
        holding = asyncio.create_task(world.keeper.hold(lease(document), until=NOW + HOUR))
        # Time to make the mistake of answering before the other one has ended.
        await asyncio.wait([holding], timeout=0.3)
    assert await holding is False


@pytest.mark.parametrize("retention", list(Retention))
async def test_processing_ends_what_is_ephemeral_alone(world: World, retention: Retention) -> None:
    document = replace(a_document(1), term=Term(retention, NOW + HOUR))
    await insert(world.documents, document)
    await world.keeper.hold(lease(document), until=NOW + HOUR)
    await world.keeper.release(lease(document), processed_at=NOW)
    hidden = await world.documents.get("acme", document.id) is None
    assert hidden == (retention is Retention.EPHEMERAL)
    assert await cause_of(world, document) is (Cause.PROCESSED if hidden else None)


async def test_an_ephemeral_document_waits_for_its_last_holder(world: World) -> None:
    document = replace(a_document(1), term=Term(Retention.EPHEMERAL, NOW + HOUR))
    await insert(world.documents, document)
    await world.keeper.hold(lease(document), until=NOW + HOUR)
    await world.keeper.hold(lease(document, 2), until=NOW + HOUR)
    await world.keeper.release(lease(document), processed_at=NOW)
    assert await world.keeper.expire(now=NOW, limit=10) == 0
    assert await world.documents.get("acme", document.id) is not None
    await world.keeper.release(lease(document, 2), processed_at=None)
    assert await world.keeper.expire(now=NOW, limit=10) == 1
    assert await cause_of(world, document) is Cause.PROCESSED


async def test_an_erasure_is_given_to_one(world: World) -> None:
    ours, theirs, later = a_document(1), a_document(2, tenant="other"), a_document(3)
    await insert(world.documents, ours, theirs, later, a_document(4))
    for document, at in ((ours, NOW), (theirs, NOW + SECOND), (later, NOW + HOUR)):
        await erase(world.documents, document, at)
    first = await world.keeper.take_erasures(now=NOW + SECOND, until=NOW + HOUR, limit=10)
    assert set(first) == {Erasure("acme", ours.id), Erasure("other", theirs.id)}
    assert await world.keeper.take_erasures(now=NOW + SECOND, until=NOW + HOUR, limit=10) == []
    again = await world.keeper.take_erasures(now=NOW + HOUR, until=NOW + 2 * HOUR, limit=2)
    assert len(again) == 2, "a claim that has ended is anybody's"


async def test_an_erasure_is_left_to_its_caller_first(world: World) -> None:
    document = a_document(1)
    await insert(world.documents, document)
    async with world.documents.locked("acme", document.id) as record:
        await record.mark_erased(NOW, cause=Cause.REQUESTED, actor="", until=NOW + HOUR)
    assert await world.keeper.take_erasures(now=NOW + HOUR - SECOND, until=NOW + 2 * HOUR, limit=1) == []
    assert len(await world.keeper.take_erasures(now=NOW + HOUR, until=NOW + 2 * HOUR, limit=1)) == 1


async def test_an_upload_that_broke_off_is_an_erasure_when_its_time_has_come(world: World) -> None:
    document = a_document(1)
    async with world.documents.locked("acme", document.id) as record:
        await record.reserve(document, until=NOW + HOUR)
    assert await world.keeper.take_erasures(now=NOW + HOUR - SECOND, until=NOW + HOUR, limit=9) == []
    assert len(await world.keeper.take_erasures(now=NOW + HOUR, until=NOW + HOUR, limit=9)) == 1
    assert await cause_of(world, document) is None


async def test_the_backlog_counts_what_is_due(world: World) -> None:
    assert await world.keeper.backlog(now=NOW) == Backlog(0, 0)
    await insert(world.documents, due(1), due(2), due(3), a_document(4))
    await erase(world.documents, due(3), NOW + 9 * SECOND)
    assert await world.keeper.backlog(now=NOW + SECOND) == Backlog(1, 0)
    assert await world.keeper.backlog(now=NOW + 9 * SECOND) == Backlog(3, 8)


async def test_receipts_come_back_as_they_went_newest_first(world: World) -> None:
    made = [receipt(number, at=NOW + (number // 2) * SECOND) for number in range(1, 6)]
    await keep(world, *made, receipt(9, tenant="other"))
    wanted = made[::-1]
    assert await world.keeper.receipts("acme", limit=3, after=None) == wanted[:3]
    last = wanted[2]
    assert await world.keeper.receipts("acme", limit=9, after=Cursor(last.delete_time, last.id)) == wanted[3:]
    assert await world.keeper.receipts("nobody", limit=9, after=None) == []


async def test_receipts_are_forgotten_after_seven_years(world: World) -> None:
    await keep(world, receipt(1), receipt(2, tenant="other"), receipt(3, at=NOW + SECOND))
    then = NOW.replace(year=NOW.year + 7)
    assert await world.keeper.forget(now=then - SECOND, limit=10) == 0
    assert [await world.keeper.forget(now=then, limit=1) for _ in range(3)] == [1, 1, 0]
    assert await world.keeper.receipts("acme", limit=9, after=None) == [receipt(3, at=NOW + SECOND)]


async def test_what_fails_under_the_lock_leaves_no_receipt(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        async with world.documents.locked("acme", receipt(1).document_id) as record:
            await record.add_receipt(receipt(1))
            raise ZeroDivisionError
    assert await world.keeper.receipts("acme", limit=9, after=None) == []


async def test_two_that_expire_at_once_share_what_is_due(database: Callable[[str], str]) -> None:
    """SKIP LOCKED: neither waits for the other, nobody hides or takes anything twice."""
    pools = [await open_pool(database_url, name="test") for database_url in [database("extractor")] * 2]
    documents, keepers = PostgresDocuments(pools[0]), [PostgresLifecycle(pool) for pool in pools]
    await insert(documents, *(due(number) for number in range(1, 41)))

    async def expire(keeper: PostgresLifecycle) -> int:
        return sum([await keeper.expire(now=NOW + HOUR, limit=3) for _ in range(20)])

    async def take(keeper: PostgresLifecycle) -> list[Erasure]:
        batches = [await keeper.take_erasures(now=NOW + HOUR, until=NOW + 2 * HOUR, limit=3) for _ in range(20)]
        return [erasure for batch in batches for erasure in batch]

    assert sum(await asyncio.gather(*(expire(keeper) for keeper in keepers))) == 40
    taken = [erasure for part in await asyncio.gather(*(take(keeper) for keeper in keepers)) for erasure in part]
    assert len(taken) == len(set(taken)) == 40
    for pool in pools:
        await pool.close()


async def test_a_lease_and_an_expiry_at_once_leave_one_truth(database: Callable[[str], str]) -> None:
    """Whatever comes first: a document that was held is not hidden, and one that was hidden cannot be held."""
    pool = await open_pool(database("extractor"), name="test")
    documents, keeper = PostgresDocuments(pool), PostgresLifecycle(pool)
    made = [due(number) for number in range(1, 60)]
    await insert(documents, *made)
    holding = asyncio.gather(*(keeper.hold(lease(document), until=NOW + 2 * HOUR) for document in made))
    await asyncio.gather(*(keeper.expire(now=NOW + HOUR, limit=7) for _ in range(9)))
    held = await holding
    for document, was_held in zip(made, held, strict=True):
        assert (await documents.get("acme", document.id) is not None) == was_held
    await pool.close()


async def test_row_security_shows_what_is_due_alone(database: Callable[[str], str]) -> None:
    dsn = database("extractor")
    pool = await open_pool(dsn, name="test")
    documents, keeper = PostgresDocuments(pool), PostgresLifecycle(pool)
    await insert(documents, due(1), due(100))
    await keeper.hold(lease(due(100)), until=NOW + HOUR)
    await keep(World(documents, keeper), receipt(1))
    await pool.close()
    tables = ("documents", "document_leases", "deletion_receipts")
    async with await psycopg.AsyncConnection.connect(dsn) as connection:

        async def seen() -> list[int]:
            counts = []
            for table in tables:
                row = await (await connection.execute(f"SELECT count(*) FROM extractor.{table}")).fetchone()
                assert row is not None
                counts.append(row[0])
            return counts

        assert await seen() == [0, 0, 0]
        await connection.execute(
            "SELECT set_config('pagemesh.lifecycle_time', %s, false)", ((NOW + SECOND).isoformat(),)
        )
        assert await seen() == [1, 1, 0]
        await connection.execute("SELECT set_config('pagemesh.tenant', 'other', false)")
        await connection.execute("SELECT set_config('pagemesh.lifecycle_time', '', false)")
        assert await seen() == [0, 0, 0]
