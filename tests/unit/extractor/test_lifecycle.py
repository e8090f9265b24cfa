"""The lifecycle worker: what expires, what is left alone, and what it outlives."""

import asyncio
import datetime as dt
from pathlib import Path

import pytest

from services.extractor.domain.keeping import Backlog, Lease
from services.extractor.domain.lifecycle import FAILURES
from services.extractor.domain.receipts import Cause
from services.extractor.domain.retention import Retention, Term
from services.runtime.errors import NotFound, Unavailable
from tests.unit.extractor.keeping import World
from tests.unit.extractor.scripted import NOW

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def kept_for(time: dt.timedelta, retention: Retention = Retention.KEPT) -> Term:
    return Term(retention, NOW + time)


async def test_what_has_expired_is_erased_with_a_receipt_and_nothing_else(world: World) -> None:
    first, second = await world.add(1, term=kept_for(HOUR)), await world.add(2, tenant="other", term=kept_for(HOUR))
    later = await world.add(3, term=kept_for(2 * HOUR))
    world.clock.time = NOW + HOUR - dt.timedelta(seconds=1)
    await world.worker.round()
    assert len(world.store.objects) == 3
    world.clock.time = NOW + HOUR
    await world.worker.round()
    assert list(world.store.objects) == [f"acme/{later.sha256}"]
    with pytest.raises(NotFound):
        await world.library.get("acme", first.name)
    (receipt,) = await world.receipts()
    assert (receipt.document, receipt.cause, receipt.actor) == (first.name, Cause.EXPIRED, "")
    assert [receipt.document for receipt in await world.receipts("other")] == [second.name]
    assert world.failures == []
    assert world.backlogs[-1] == Backlog(0, 0)


async def test_more_than_a_batch_is_erased_in_one_round(world: World) -> None:
    for number in range(1, 48):
        await world.add(number, term=kept_for(HOUR))
    world.clock.time = NOW + HOUR
    await world.worker.round()
    assert world.store.objects == {}
    assert len(await world.receipts()) == 47


async def test_what_is_held_does_not_expire_until_it_is_released(world: World) -> None:
    document = await world.add(1, term=kept_for(HOUR))
    lease = Lease("acme", document.id, "00000000-0000-4000-8000-000000000001")
    await world.documents.hold(lease, until=NOW + 3 * HOUR)
    world.clock.time = NOW + 2 * HOUR
    await world.worker.round()
    assert await world.library.get("acme", document.name) == document
    await world.documents.release(lease, processed_at=None)
    await world.worker.round()
    assert world.store.objects == {}


async def test_a_holder_that_died_does_not_hold_for_ever(world: World) -> None:
    document = await world.add(1, term=kept_for(HOUR))
    lease = Lease("acme", document.id, "00000000-0000-4000-8000-000000000001")
    await world.documents.hold(lease, until=NOW + 2 * HOUR)
    world.clock.time = NOW + 2 * HOUR
    await world.worker.round()
    assert world.store.objects == {}


async def test_a_deletion_that_is_asked_for_does_not_wait(world: World) -> None:
    document = await world.add(1)
    await world.documents.hold(Lease("acme", document.id, "00000000-0000-4000-8000-000000000001"), until=NOW + HOUR)
    assert (await world.eraser.delete("acme", document.name, actor="me")).objects_deleted == 1


async def test_receipts_go_after_seven_years(world: World) -> None:
    await world.eraser.delete("acme", (await world.add(1)).name, actor="me")
    world.clock.time = NOW.replace(year=NOW.year + 7) - dt.timedelta(seconds=1)
    await world.worker.round()
    assert len(await world.receipts()) == 1
    world.clock.time += dt.timedelta(seconds=1)
    await world.worker.round()
    assert await world.receipts() == []


async def test_what_is_down_is_told_and_not_asked_for_each_document(world: World) -> None:
    for number in range(1, 10):
        await world.add(number, term=kept_for(HOUR))
    world.clock.time = NOW + HOUR
    world.results.down = True
    await world.worker.round()
    assert world.results.asked == FAILURES
    assert [step for step, _ in world.failures] == ["erase"] * FAILURES
    assert world.rounds == 1, "the other steps go on"
    assert world.backlogs[-1].waiting == 9
    assert world.backlogs[-1].oldest_age_s == 0
    world.results.down = False
    world.later(minutes=1)
    await world.worker.round()
    assert world.store.objects == {}


async def test_one_document_that_breaks_the_worker_stops_no_other(world: World) -> None:
    broken = await world.add(1, term=kept_for(HOUR))
    await world.add(2, term=kept_for(HOUR))
    purge = world.results.purge

    async def unforeseen(tenant: str, document: str) -> int:
        if document == broken.name:
            raise KeyError("unforeseen")
        return await purge(tenant, document)

    world.results.purge = unforeseen  # type: ignore[method-assign]
    world.clock.time = NOW + HOUR
    await world.worker.round()
    assert list(world.store.objects) == [f"acme/{broken.sha256}"]
    assert [type(error) for _, error in world.failures] == [KeyError]


async def test_two_workers_share_the_work(world: World) -> None:
    for number in range(1, 31):
        await world.add(number, term=kept_for(HOUR))
    world.clock.time = NOW + HOUR
    await asyncio.gather(world.worker.round(), world.worker.round())
    assert len(await world.receipts()) == 30
    assert world.results.asked == 30, "each document once"


async def test_it_works_until_it_is_cancelled_and_at_once_when_it_is_woken(world: World) -> None:
    task = asyncio.create_task(world.worker.run())
    await world.until_round(1)
    document = await world.add(1, term=kept_for(HOUR))
    world.clock.time = NOW + HOUR
    world.worker.wake()
    await world.until_round(2)
    with pytest.raises(NotFound):
        await world.library.get("acme", document.name)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_database_that_is_down_ends_no_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(**_: object) -> int:
        raise Unavailable("DATABASE_UNAVAILABLE", "down")

    for name in ("expire", "take_erasures", "forget", "backlog"):
        monkeypatch.setattr(world.documents, name, down)
    await world.worker.round()
    assert [step for step, _ in world.failures] == ["expire", "erase", "forget", "backlog"]
