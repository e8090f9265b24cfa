"""Tenants take turns."""

import asyncio
import contextlib

import pytest

from services.runtime.errors import ResourceExhausted
from services.waiting.fair_slots import PASSED_OVER, FairSlots


def busy() -> ResourceExhausted:
    return ResourceExhausted("ALL_BUSY", "Everybody is busy.", retry_after_s=2.0)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def queue_up(
    slots: FairSlots, order: list[str], *names: str, turns: int = 0, rank: int = 0
) -> list["asyncio.Task[None]"]:
    async def wait(name: str) -> None:
        await slots.acquire(name[0], timeout_s=None, turns=turns, rank=rank)
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


async def test_an_urgent_call_does_not_wait_for_its_tenants_backlog() -> None:
    slots = FairSlots(size=1, max_waiting=200, busy=busy)
    await slots.acquire("a", timeout_s=None, rank=2)
    order: list[str] = []
    await queue_up(slots, order, *(f"a-batch{n}" for n in range(20)), rank=2)
    await queue_up(slots, order, "a-normal", rank=1)
    await queue_up(slots, order, "a-urgent")
    for _ in range(3):
        slots.release("a")
        await settle()
    assert order == ["a-urgent", "a-normal", "a-batch0"]


async def test_urgent_calls_do_not_keep_the_others_of_their_tenant_waiting_for_ever() -> None:
    slots = FairSlots(size=1, max_waiting=200, busy=busy)
    await slots.acquire("a", timeout_s=None)
    order: list[str] = []
    await queue_up(slots, order, "a-batch", "a-batch-too", rank=2)
    for number in range(10):
        await queue_up(slots, order, f"a{number}", f"a{number + 10}")
        slots.release("a")
        await settle()
    assert [order.index("a-batch"), order.index("a-batch-too")] == [PASSED_OVER, 2 * PASSED_OVER + 1]


async def test_ranks_are_a_tenants_own() -> None:
    slots = FairSlots(size=1, max_waiting=200, busy=busy)
    await slots.acquire("x", timeout_s=None)
    order: list[str] = []
    await queue_up(slots, order, "b1", "b2", rank=2)
    await queue_up(slots, order, "a1", "a2", "a3")
    for holder in ("x", "b", "a", "b"):
        slots.release(holder)
        await settle()
    assert order == ["b1", "a1", "b2", "a2"]


async def test_the_last_slot_is_kept_for_urgent_calls() -> None:
    slots = FairSlots(size=3, max_waiting=200, busy=busy, kept=1)
    order: list[str] = []
    await queue_up(slots, order, "a1", "a2", "a3", "a4", rank=1)
    assert order == ["a1", "a2"]
    await queue_up(slots, order, "a-urgent", "a-urgent-too", "b-urgent")
    assert order == ["a1", "a2", "a-urgent"]
    slots.release("a")
    await settle()
    assert order[3:] == ["b-urgent"]
    slots.release("a")
    await settle()
    assert order[4:] == ["a-urgent-too"], "what is free goes to it, for the longest waiter may not have it"
    for holder in ("a", "b"):
        slots.release(holder)
        await settle()
    assert order[5:] == ["a3"], "one is kept again"
    slots.release("a")
    await settle()
    assert order[6:] == ["a4"]


async def test_a_backlog_leaves_room_in_the_queue_for_urgent_calls() -> None:
    slots = FairSlots(size=1, max_waiting=16, busy=busy)
    await slots.acquire("a", timeout_s=None)
    await queue_up(slots, [], *(f"a{n}" for n in range(6)), rank=2)
    with pytest.raises(ResourceExhausted):
        await slots.acquire("a", timeout_s=None, rank=2)
    await queue_up(slots, [], "a-urgent", "a-urgent-too")
    assert slots.waiting == 8
    with pytest.raises(ResourceExhausted):
        await slots.acquire("a", timeout_s=None)


async def test_whoever_leaves_frees_what_was_held_for_him_and_nobody_is_passed_by() -> None:
    slots = FairSlots(size=2, max_waiting=20, busy=busy, kept=1)
    order: list[str] = []
    (holder, waiting) = await queue_up(slots, order, "a1", "a2", rank=1)
    waiting.cancel()
    await settle()
    await queue_up(slots, order, "a3", rank=1)
    slots.release("a")
    await settle()
    assert order == ["a1", "a3"]
    assert holder.done()
