"""Tenants take turns."""

import asyncio
import contextlib

import pytest

from services.runtime.errors import ResourceExhausted
from services.waiting.fair_slots import FairSlots


def busy() -> ResourceExhausted:
    return ResourceExhausted("ALL_BUSY", "Everybody is busy.", retry_after_s=2.0)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def queue_up(slots: FairSlots, order: list[str], *names: str, turns: int = 0) -> list["asyncio.Task[None]"]:
    async def wait(name: str) -> None:
        await slots.acquire(name[0], timeout_s=None, turns=turns)
        order.append(name)

    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(wait(name)))
        await settle()
    return tasks


async def test_tenants_take_turns() -> None:
    slots = FairSlots(size=1, max_waiting=10, busy=busy)
    await slots.acquire("x", timeout_s=None)
    order: list[str] = []
    tasks = await queue_up(slots, order, "a1", "a2", "a3", "b1", "c1", "b2")
    for holder in ("x", "a", "b", "c", "a", "b"):
        slots.release(holder)
        await settle()
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert all(task.done() for task in tasks)


async def test_a_tenant_with_many_calls_gets_no_last_slot_while_another_has_none() -> None:
    slots = FairSlots(size=3, max_waiting=20, busy=busy)
    for _ in range(3):
        await slots.acquire("a", timeout_s=None)  # nobody else is there: all of them
    order: list[str] = []
    await queue_up(slots, order, "a1", "a2", "a3", "b1", "b2", "c1")
    for holder in ("a", "a", "a", "b", "c"):
        slots.release(holder)
        await settle()
    assert order == ["b1", "c1", "a1", "b2", "a2"]


async def test_one_tenant_cannot_fill_the_queue() -> None:
    slots = FairSlots(size=1, max_waiting=4, busy=busy)
    await slots.acquire("a", timeout_s=None)
    await queue_up(slots, [], "a1", "a2")
    with pytest.raises(ResourceExhausted):
        await slots.acquire("a", timeout_s=None)
    await queue_up(slots, [], "b1")
    assert slots.waiting == 3


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    slots = FairSlots(size=1, max_waiting=1, busy=busy)
    await slots.acquire("a", timeout_s=None)
    (waiting,) = await queue_up(slots, [], "a1")
    with pytest.raises(ResourceExhausted) as refused:
        await slots.acquire("b", timeout_s=None)
    assert refused.value.reason == "ALL_BUSY"
    assert refused.value.retry_after_s
    slots.release("a")
    await waiting


async def test_a_wait_that_takes_too_long_gives_its_place_up() -> None:
    slots = FairSlots(size=1, max_waiting=1, busy=busy)
    await slots.acquire("a", timeout_s=None)
    with pytest.raises(ResourceExhausted):
        await slots.acquire("b", timeout_s=0.01)
    assert slots.waiting == 0
    slots.release("a")
    await slots.acquire("c", timeout_s=0.01)


async def test_a_slot_that_comes_as_the_waiter_leaves_is_not_lost() -> None:
    slots = FairSlots(size=1, max_waiting=5, busy=busy)
    await slots.acquire("a", timeout_s=None)
    (waiting,) = await queue_up(slots, [], "b1")
    slots.release("a")  # the waiter has it, but has not run yet
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await slots.acquire("c", timeout_s=0.01)


async def test_a_cancelled_waiter_is_passed_over() -> None:
    slots = FairSlots(size=1, max_waiting=5, busy=busy)
    await slots.acquire("a", timeout_s=None)
    order: list[str] = []
    first, second = await queue_up(slots, order, "b1", "b2")
    first.cancel()
    await settle()
    slots.release("a")
    await second
    assert order == ["b2"]


async def test_a_small_document_does_not_wait_for_all_of_the_large_ones_of_its_tenant() -> None:
    slots = FairSlots(size=1, max_waiting=200, busy=busy)
    await slots.acquire("a", timeout_s=None)
    order: list[str] = []
    await queue_up(slots, order, *(f"a{n}" for n in range(50)), turns=7)
    await queue_up(slots, order, "a-small")
    slots.release("a")
    await settle()
    assert order == ["a-small"]


async def test_small_documents_do_not_keep_a_large_one_of_their_tenant_waiting_for_ever() -> None:
    slots = FairSlots(size=1, max_waiting=200, busy=busy)
    await slots.acquire("a", timeout_s=None)
    order: list[str] = []
    await queue_up(slots, order, "a-large", turns=7)
    for number in range(6):
        await queue_up(slots, order, f"a{number}", f"a{number + 10}")
        slots.release("a")
        await settle()
    assert "a-large" in order[:2]


async def test_a_tenant_with_fifty_large_documents_keeps_another_waiting_for_one_turn() -> None:
    slots = FairSlots(size=2, max_waiting=200, busy=busy)
    for _ in range(2):
        await slots.acquire("a", timeout_s=None)
    order: list[str] = []
    await queue_up(slots, order, *(f"a{n}" for n in range(50)), turns=3)
    await queue_up(slots, order, "b1")
    slots.release("a")
    await settle()
    assert order == ["b1"]


async def test_whoever_has_begun_is_not_turned_away() -> None:
    slots = FairSlots(size=1, max_waiting=2, busy=busy)
    await slots.acquire("a", timeout_s=None)
    order: list[str] = []
    await queue_up(slots, order, "b1", "c1")
    with pytest.raises(ResourceExhausted):
        await slots.acquire("a", timeout_s=None)
    (going_on,) = await queue_up(slots, order, "a-goes-on", turns=1)
    for holder in ("a", "b", "c"):
        slots.release(holder)
        await settle()
    assert order == ["b1", "c1", "a-goes-on"]
    assert going_on.done()
