"""Who may fetch a document, and when: by bytes, by number, by turns between tenants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from prometheus_client import REGISTRY

from services.extractor.adapters.download_room import DownloadRoom, RoomLimits
from services.runtime.errors import ResourceExhausted

LIMITS = RoomLimits(downloads=2, max_bytes=100, max_waiting=4, wait_s=60)


def held_bytes() -> float:
    return REGISTRY.get_sample_value("pagemesh_extractor_downloaded_bytes") or 0.0


@pytest.fixture
def room() -> DownloadRoom:
    return DownloadRoom(LIMITS)


class Reader:
    """Somebody who has a document of that size open until told to close it."""

    def __init__(self, room: DownloadRoom, tenant: str, size_bytes: int) -> None:
        self.has_it = asyncio.Event()
        self._close = asyncio.Event()
        self.task = asyncio.create_task(self._read(room, tenant, size_bytes))

    async def _read(self, room: DownloadRoom, tenant: str, size_bytes: int) -> None:
        async with room.place(tenant) as place:
            if not place.take(size_bytes):
                await place.wait(size_bytes)
            self.has_it.set()
            await self._close.wait()

    async def close(self) -> None:
        self._close.set()
        await self.task


@pytest.fixture
async def read(room: DownloadRoom) -> AsyncIterator[Callable[[str, int], Awaitable[Reader]]]:
    async with AsyncExitStack() as stack:

        async def begin(tenant: str, size_bytes: int) -> Reader:
            reader = Reader(room, tenant, size_bytes)
            stack.callback(reader.task.cancel)
            await settled()
            return reader

        yield begin


async def settled() -> None:
    """Everybody has gone as far as it gets."""
    for _ in range(10):
        await asyncio.sleep(0)


Read = Callable[[str, int], Awaitable[Reader]]


async def test_bytes_are_bounded_and_given_back(read: Read) -> None:
    before = held_bytes()
    first, second = await read("a", 50), await read("b", 50)
    assert held_bytes() - before == 100
    third = await read("c", 1)
    assert (first.has_it.is_set(), second.has_it.is_set(), third.has_it.is_set()) == (True, True, False)
    await first.close()
    await settled()
    assert third.has_it.is_set()
    assert held_bytes() - before == 51
    await second.close()
    await third.close()
    assert held_bytes() == before


async def test_a_document_that_is_larger_than_all_of_it_comes_when_nothing_else_is_there(read: Read) -> None:
    small = await read("a", 1)
    large = await read("b", 1000)
    assert not large.has_it.is_set()
    await small.close()
    await settled()
    assert large.has_it.is_set()
    other = await read("c", 1)
    assert not other.has_it.is_set()
    await large.close()
    await settled()
    assert other.has_it.is_set()


async def test_small_ones_do_not_overtake_a_large_one_for_ever(read: Read) -> None:
    first = await read("a", 40)
    large = await read("b", 80)
    small = await read("c", 10)
    assert (large.has_it.is_set(), small.has_it.is_set()) == (False, False)
    await first.close()
    await settled()
    assert (large.has_it.is_set(), small.has_it.is_set()) == (True, True)


async def test_a_tenant_has_half_of_it_and_keeps_nobody_else_waiting(read: Read) -> None:
    mine = [await read("a", 25) for _ in range(4)]
    assert [reader.has_it.is_set() for reader in mine] == [True, True, False, False]
    theirs = await read("b", 50)
    assert theirs.has_it.is_set()
    await mine[0].close()
    await settled()
    assert [reader.has_it.is_set() for reader in mine] == [True, True, True, False]


async def test_who_leaves_lets_those_behind_it_pass(read: Read, room: DownloadRoom) -> None:
    before = held_bytes()
    first = await read("a", 40)
    large, small = await read("b", 80), await read("c", 10)
    large.task.cancel()
    await settled()
    assert small.has_it.is_set()
    assert held_bytes() - before == 50
    await first.close()
    await small.close()
    assert held_bytes() == before


async def test_who_leaves_as_it_is_let_in_keeps_nothing(read: Read) -> None:
    before = held_bytes()
    first = await read("a", 100)
    second = await read("b", 100)
    first.task.cancel()
    await asyncio.wait([first.task])  # its bytes have been given to the second, which has not run since
    second.task.cancel()
    await asyncio.wait([second.task])
    assert second.task.cancelled()
    assert held_bytes() == before
    assert (await read("c", 100)).has_it.is_set()


async def test_so_many_are_on_their_way(room: DownloadRoom) -> None:
    async with room.place("a") as first, room.place("b") as second, room.place("c") as third, AsyncExitStack() as rest:
        async with first.turn():
            await rest.enter_async_context(second.turn())
            waiting = asyncio.create_task(rest.enter_async_context(third.turn()))
            await settled()
            assert not waiting.done()
        await waiting


async def test_waiting_ends() -> None:
    room = DownloadRoom(RoomLimits(downloads=1, max_bytes=100, max_waiting=4, wait_s=0))
    async with room.place("a") as first, room.place("b") as late, first.turn():
        assert first.take(100)
        with pytest.raises(ResourceExhausted) as of_turns:
            await late.turn().__aenter__()
        assert not late.take(1)
        with pytest.raises(ResourceExhausted) as of_bytes:
            await late.wait(1)
    for told in (of_turns.value, of_bytes.value):
        assert told.reason == "STORE_BUSY"
        assert told.retry_after_s


async def test_a_tenant_fills_at_most_half_of_the_queue(read: Read) -> None:
    await read("a", 100)
    mine = [await read("b", 60) for _ in range(3)]
    assert [reader.task.done() for reader in mine] == [False, False, True]
    with pytest.raises(ResourceExhausted, match="STORE_BUSY"):
        await mine[2].task
    theirs = [await read(tenant, 60) for tenant in "cde"]
    assert [reader.task.done() for reader in theirs] == [False, False, True]
    with pytest.raises(ResourceExhausted, match="STORE_BUSY"):
        await theirs[2].task


async def test_a_place_that_is_taken_twice_is_taken_once(room: DownloadRoom) -> None:
    before = held_bytes()
    async with room.place("a") as place:
        assert place.take(30)
        assert place.take(30)
        assert held_bytes() - before == 30
    assert held_bytes() == before
