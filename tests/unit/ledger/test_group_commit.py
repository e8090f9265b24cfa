"""Groups of calls: who travels with whom, and what one of them may do to the others."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from services.ledger.adapters.group_commit import GroupCommit, GroupFailedError
from services.runtime.errors import AlreadyExists, PagemeshError, ResourceExhausted, Unavailable

Run = Callable[[str, Sequence[int]], Awaitable[Sequence[int | PagemeshError]]]


class Door:
    """A transaction that waits to be let through, and notes its groups."""

    def __init__(self, *, open_: bool = True) -> None:
        self.groups: list[tuple[str, list[int]]] = []
        self.open = asyncio.Event()
        if open_:
            self.open.set()

    async def run(self, tenant: str, moves: Sequence[int]) -> Sequence[int | PagemeshError]:
        self.groups.append((tenant, list(moves)))
        await self.open.wait()
        if any(move < 0 for move in moves):
            raise ValueError("a negative one")
        if any(move > 10**6 for move in moves):
            raise GroupFailedError from LookupError("a large one")
        return [AlreadyExists("ODD", "odd") if move % 2 else move * 10 for move in moves]

    async def reached(self, groups: int = 1) -> None:
        """Waits for so many groups at the door."""
        async with asyncio.timeout(60):
            while len(self.groups) < groups:
                await asyncio.sleep(0)


def commits(run: Run, **limits: int) -> GroupCommit[int, int]:
    return GroupCommit(run, ids=lambda move: (move % 1000,), **limits)


async def test_what_arrives_while_a_group_is_under_way_travels_together() -> None:
    door = Door(open_=False)
    group = commits(door.run)
    calls = [asyncio.create_task(group.submit("t", move)) for move in range(0, 12, 2)]
    await asyncio.sleep(0)
    door.open.set()
    assert await asyncio.gather(*calls) == [0, 20, 40, 60, 80, 100]
    assert door.groups == [("t", [0, 2, 4, 6, 8, 10])]


async def test_a_call_that_is_there_within_a_turn_travels_with_the_first() -> None:
    door = Door()
    group = commits(door.run)
    first = asyncio.create_task(group.submit("t", 2))
    await asyncio.sleep(0)
    assert await group.submit("t", 4) == 40
    assert await first == 20
    assert [moves for _, moves in door.groups] == [[2, 4]]


async def test_each_call_has_its_own_answer_and_refusal() -> None:
    group = commits(Door().run)
    results = await asyncio.gather(*(group.submit("t", move) for move in range(4)), return_exceptions=True)
    assert (results[0], results[2]) == (0, 20)
    assert all(isinstance(results[n], AlreadyExists) for n in (1, 3))


@pytest.mark.parametrize(("bad", "error"), [(-4, ValueError), (10**6 + 4, LookupError)])
async def test_a_failed_group_falls_back_to_singles(bad: int, error: type[Exception]) -> None:
    door = Door()
    group = commits(door.run)
    results = await asyncio.gather(*(group.submit("t", move) for move in (2, bad, 6)), return_exceptions=True)
    assert (results[0], results[2]) == (20, 60)
    assert isinstance(results[1], error)
    assert [moves for _, moves in door.groups] == [[2, bad, 6], [2], [bad], [6]]


async def test_what_is_about_the_same_thing_waits_for_the_next_group() -> None:
    door = Door()
    group = commits(door.run)
    await asyncio.gather(*(group.submit("t", move) for move in (2, 1002 + 1000, 4)))
    assert [moves for _, moves in door.groups] == [[2], [2002, 4]]


async def test_a_caller_who_gives_up_takes_nobody_along() -> None:
    door = Door(open_=False)
    group = commits(door.run, most_in_group=3)
    calls = [asyncio.create_task(group.submit("t", move)) for move in range(0, 12, 2)]
    await door.reached()
    calls[1].cancel()  # under way
    calls[4].cancel()  # still waiting
    door.open.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [r for r in results if isinstance(r, int)] == [0, 40, 60, 100]
    assert [moves for _, moves in door.groups] == [[0, 2, 4], [6, 10]]


async def test_tenants_do_not_wait_for_each_other() -> None:
    door = Door(open_=False)
    group = commits(door.run)
    calls = [asyncio.create_task(group.submit(tenant, 2)) for tenant in ("a", "b")]
    await door.reached(2)
    assert sorted(tenant for tenant, _ in door.groups) == ["a", "b"]
    door.open.set()
    assert await asyncio.gather(*calls) == [20, 20]


async def test_the_queue_is_bounded() -> None:
    door = Door(open_=False)
    group = commits(door.run, most_waiting=3, most_in_group=1)
    calls = [asyncio.create_task(group.submit("t", move)) for move in (2, 4, 6)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match="LEDGER_BUSY"):
        await asyncio.gather(*(group.submit("t", 8 + move) for move in (0, 2)))
    door.open.set()
    assert await asyncio.gather(*calls) == [20, 40, 60]
    assert await group.submit("t", 2) == 20


async def test_what_is_wrong_for_all_is_told_to_all() -> None:
    async def gone(tenant: str, moves: Sequence[int]) -> Sequence[int | PagemeshError]:
        raise Unavailable("DATABASE_UNAVAILABLE", "gone", retry_after_s=1.0)

    group = commits(gone)
    results = await asyncio.gather(*(group.submit("t", move) for move in range(3)), return_exceptions=True)
    assert all(isinstance(r, Unavailable) for r in results)
    assert len({id(r) for r in results}) == 3


async def test_closing_tells_those_who_wait() -> None:
    door = Door(open_=False)
    group = commits(door.run, most_in_group=1)
    calls = [asyncio.create_task(group.submit("t", move)) for move in (2, 4)]
    await door.reached()
    await group.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(r, Unavailable) for r in results)
