"""Listing and erasing."""

import datetime as dt
from pathlib import Path

import pytest

from services.extractor.adapters.memory import MemoryDocuments, MemoryObjectStore
from services.extractor.domain.documents import Document
from services.extractor.domain.library import ERASURE_GRACE, Library
from services.runtime.errors import NotFound, Unavailable
from tests.unit.extractor.scripted import NOW, StillClock, a_document


class BreakableStore(MemoryObjectStore):
    down = False

    async def delete(self, key: str) -> bool:
        if self.down:
            raise Unavailable("STORE_UNAVAILABLE", "down")
        return await super().delete(key)


class World:
    def __init__(self, directory: Path) -> None:
        self.documents, self.store, self.clock = MemoryDocuments(), BreakableStore(), StillClock()
        self.library = Library(repository=self.documents, store=self.store, clock=self.clock)
        self._file = directory / "bytes"
        self._file.write_bytes(b"bytes")

    async def add(self, number: int, *, tenant: str = "acme", at: dt.datetime | None = None) -> Document:
        time = at or NOW + dt.timedelta(seconds=number)
        document = a_document(f"{number:064x}"[::-1], tenant=tenant, create_time=time)
        await self.store.put(f"{tenant}/{document.sha256}", self._file)
        async with self.documents.locked(tenant, document.id) as record:
            await record.insert(document)
        return document


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def listed(world: World, page_size: int) -> list[str]:
    names: list[str] = []
    token = ""
    while True:
        part = await world.library.list("acme", page_size=page_size, page_token=token)
        assert len(part.documents) <= page_size
        names += [document.name for document in part.documents]
        token = part.next_page_token
        if not token:
            return names


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 8])
async def test_a_list_has_everything_once_newest_first(world: World, page_size: int) -> None:
    made = [await world.add(number) for number in range(1, 8)]
    await world.add(99, tenant="other")
    assert await listed(world, page_size) == [document.name for document in reversed(made)]


async def test_documents_of_one_moment_are_all_listed(world: World) -> None:
    made = {(await world.add(number, at=NOW)).name for number in range(1, 6)}
    names = await listed(world, 2)
    assert len(names) == 5
    assert set(names) == made


async def test_a_list_goes_on_where_it_was_whatever_comes_and_goes(world: World) -> None:
    made = [await world.add(number) for number in range(1, 7)]
    first = await world.library.list("acme", page_size=2, page_token="")
    await world.add(50)
    await world.library.delete("acme", made[4].name)  # the last one that was listed
    rest = await world.library.list("acme", page_size=10, page_token=first.next_page_token)
    assert [document.name for document in rest.documents] == [document.name for document in reversed(made[:4])]


async def test_a_receipt_tells_what_was_erased(world: World) -> None:
    document = await world.add(1)
    receipt = await world.library.delete("acme", document.name)
    assert receipt.document == document
    assert receipt.objects_deleted == 1
    assert receipt.delete_time == NOW
    assert world.store.objects == {}
    with pytest.raises(NotFound):
        await world.library.get("acme", document.name)
    with pytest.raises(NotFound):
        await world.library.delete("acme", document.name)


async def test_another_tenants_document_is_not_there(world: World) -> None:
    document = await world.add(1)
    with pytest.raises(NotFound):
        await world.library.get("other", document.name)
    with pytest.raises(NotFound):
        await world.library.delete("other", document.name)
    assert (await world.library.get("acme", document.name)) == document


async def test_a_deletion_that_broke_off_is_invisible_and_can_be_called_again(world: World) -> None:
    document = await world.add(1)
    world.store.down = True
    with pytest.raises(Unavailable):
        await world.library.delete("acme", document.name)
    with pytest.raises(NotFound):
        await world.library.get("acme", document.name)
    assert await listed(world, 10) == []
    world.store.down = False
    assert (await world.library.delete("acme", document.name)).objects_deleted == 1


async def test_the_sweep_completes_what_broke_off_and_leaves_the_rest(world: World) -> None:
    broken, kept = await world.add(1), await world.add(2)
    world.store.down = True
    with pytest.raises(Unavailable):
        await world.library.delete("acme", broken.name)
    world.store.down = False
    assert await world.library.sweep() == 0  # still its caller's
    world.clock.time = NOW + ERASURE_GRACE + dt.timedelta(seconds=1)
    assert await world.library.sweep() == 1
    assert await world.library.sweep() == 0
    assert list(world.store.objects) == [f"acme/{kept.sha256}"]
