"""Erasing: what a deletion removes, what it answers, and what is left where it breaks off."""

import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.extractor.domain.erasure import CLAIM
from services.extractor.domain.receipts import Cause, DeletionReceipt
from services.runtime.errors import NotFound, Unavailable
from tests.unit.extractor.keeping import BreakableStore, World
from tests.unit.extractor.scripted import NOW

ME = "apiKeys/me"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_receipt_tells_what_was_erased(world: World) -> None:
    document = await world.add(1)
    world.results.made["acme", document.name] = 3
    receipt = await world.eraser.delete("acme", document.name, actor=ME)
    assert receipt == DeletionReceipt(
        id=f"{1:032x}",
        tenant="acme",
        document_id=document.id,
        sha256=document.sha256,
        size_bytes=document.size_bytes,
        objects_deleted=1,
        pages_deleted=0,
        index_entries_deleted=0,
        results_deleted=3,
        cause=Cause.REQUESTED,
        delete_time=NOW,
        actor=ME,
    )
    assert world.told == [receipt] == await world.receipts()
    assert world.store.objects == {}
    with pytest.raises(NotFound):
        await world.library.get("acme", document.name)
    with pytest.raises(NotFound):
        await world.eraser.delete("acme", document.name, actor=ME)
    assert len(await world.receipts()) == 1


async def test_another_tenants_document_is_not_there(world: World) -> None:
    document = await world.add(1)
    with pytest.raises(NotFound):
        await world.eraser.delete("other", document.name, actor=ME)
    assert await world.library.get("acme", document.name) == document


def store_down(world: World, down: bool) -> None:
    assert isinstance(world.store, BreakableStore)
    world.store.down = down


def results_down(world: World, down: bool) -> None:
    world.results.down = down


@pytest.mark.parametrize("break_down", [store_down, results_down])
async def test_a_deletion_that_broke_off_is_invisible_and_can_be_called_again(
    world: World, break_down: Callable[[World, bool], None]
) -> None:
    document = await world.add(1)
    world.results.made["acme", document.name] = 2
    break_down(world, True)
    with pytest.raises(Unavailable) as told:
        await world.eraser.delete("acme", document.name, actor=ME)
    assert told.value.reason == "DELETION_UNFINISHED"
    assert told.value.metadata["waits_for"] in ("STORE_UNAVAILABLE", "SUMMARIZER_UNAVAILABLE")
    assert told.value.retry_after_s
    with pytest.raises(NotFound):
        await world.library.get("acme", document.name)
    assert (await world.library.list("acme", page_size=10, page_token="")).documents == []
    assert await world.receipts() == []
    break_down(world, False)
    receipt = await world.eraser.delete("acme", document.name, actor="apiKeys/another")
    # What an earlier attempt erased is told too, and so is who asked first.
    assert (receipt.objects_deleted, receipt.results_deleted, receipt.actor) == (1, 2, ME)


async def test_the_worker_completes_what_broke_off_when_its_caller_is_gone(world: World) -> None:
    broken, kept = await world.add(1), await world.add(2)
    results_down(world, True)
    with pytest.raises(Unavailable):
        await world.eraser.delete("acme", broken.name, actor=ME)
    results_down(world, False)
    await world.worker.round()
    assert await world.receipts() == []  # still its caller's
    world.clock.time += CLAIM
    await world.worker.round()
    (receipt,) = await world.receipts()
    assert (receipt.document, receipt.cause, receipt.actor) == (broken.name, Cause.REQUESTED, ME)
    await world.worker.round()
    assert len(await world.receipts()) == 1
    assert list(world.store.objects) == [f"acme/{kept.sha256}"]


def test_the_digest_is_over_the_bytes_that_the_documentation_promises() -> None:
    receipt = DeletionReceipt(
        "0f" * 16, "acme", "ab" * 16, "ab" * 32, 12, 1, 2, 3, 4, Cause.EXPIRED, NOW + dt.timedelta(microseconds=7), ME
    )
    text = (
        "pagemesh-deletion-receipt-v1\n"
        f"name=deletionReceipts/{'0f' * 16}\n"
        f"document=documents/{'ab' * 16}\n"
        f"sha256={'ab' * 32}\n"
        "size_bytes=12\nobjects_deleted=1\npages_deleted=2\nindex_entries_deleted=3\nresults_deleted=4\n"
        "cause=EXPIRED\n"
        "delete_time_us=1767225600000007\n"
    )
    assert receipt.digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("change", [{"size_bytes": 13}, {"cause": Cause.REQUESTED}, {"pages_deleted": 9}])
def test_a_digest_is_of_its_receipt_alone(change: dict[str, object]) -> None:
    receipt = DeletionReceipt("0f" * 16, "acme", "ab" * 16, "ab" * 32, 12, 1, 2, 3, 4, Cause.EXPIRED, NOW)
    assert replace(receipt, **change).digest != receipt.digest  # type: ignore[arg-type]
    assert replace(receipt, actor=ME).digest == receipt.digest
