"""What an upload stores, what it refuses, and what it does beside a deletion."""

import asyncio
import contextlib
import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.extractor.adapters.memory import MemoryDocuments, MemoryObjectStore, MemorySpool
from services.extractor.domain.documents import Uploaded
from services.extractor.domain.library import ERASURE_GRACE, Library
from services.extractor.domain.ports import DocumentRecord
from services.extractor.domain.upload import RESERVATION, UploadDocument
from services.runtime.errors import Aborted, DeadlineExceeded, InvalidArgument, NotFound, PagemeshError, Unavailable
from tests.unit.extractor.scripted import NOW, StillClock

PDF = b"%PDF-1.7\n" + b"x" * 5000
SHA256 = hashlib.sha256(PDF).hexdigest()
LIMIT = 10_000


async def in_pieces(data: bytes, size: int = 700) -> AsyncIterator[bytes]:
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]


class World:
    def __init__(self, store: MemoryObjectStore, documents: MemoryDocuments | None = None) -> None:
        self.documents, self.store, self.clock = documents or MemoryDocuments(), store, StillClock()
        self.take_in = UploadDocument(
            repository=self.documents,
            store=store,
            spool=MemorySpool(),
            clock=self.clock,
            max_upload_bytes=LIMIT,
            stall_s=0.05,
        )
        self.library = Library(repository=self.documents, store=store, clock=self.clock)

    async def upload(self, data: bytes = PDF, name: str = "a.pdf", *, tenant: str = "acme") -> Uploaded:
        return await self.take_in(tenant, name, in_pieces(data))

    async def refusal(self, data: bytes, name: str = "a.pdf") -> PagemeshError:
        with pytest.raises(PagemeshError) as refused:
            await self.upload(data, name)
        assert self.store.objects == {}
        return refused.value


@pytest.fixture
def world() -> World:
    return World(MemoryObjectStore())


async def test_bytes_are_stored_under_their_digest(world: World) -> None:
    uploaded = await world.upload()
    assert uploaded.created
    assert uploaded.document.sha256 == SHA256
    assert uploaded.document.name == f"documents/{SHA256[:32]}"
    assert uploaded.document.size_bytes == len(PDF)
    assert uploaded.document.create_time == NOW
    assert world.store.objects == {f"acme/{SHA256}": PDF}


async def test_the_same_bytes_are_the_same_document(world: World) -> None:
    first = await world.upload(name="first.pdf")
    second = await world.upload(name="second.pdf")
    assert not second.created
    assert second.document == first.document


async def test_another_tenant_has_its_own(world: World) -> None:
    await world.upload()
    assert (await world.upload(tenant="other")).created
    assert set(world.store.objects) == {f"acme/{SHA256}", f"other/{SHA256}"}


async def test_an_empty_upload_is_refused(world: World) -> None:
    refusal = await world.refusal(b"")
    assert refusal.reason == "EMPTY_FILE"
    assert refusal.fields[0].field == "content"


async def test_an_upload_at_the_limit_is_taken(world: World) -> None:
    assert (await world.upload(PDF.ljust(LIMIT, b"."))).document.size_bytes == LIMIT


async def test_an_upload_past_the_limit_is_refused_as_soon_as_it_passes_it(world: World) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield PDF
        while True:
            yield b"x" * 1000

    with pytest.raises(InvalidArgument) as refused:
        await world.take_in("acme", "a.pdf", endless())
    assert refused.value.reason == "FILE_TOO_LARGE"
    assert world.store.objects == {}


@pytest.mark.parametrize("data", [b"not a PDF", b"<html>" + b" " * 5000, b"PK\x03\x04" + b"x" * 3000])
async def test_the_wrong_type_is_refused(world: World, data: bytes) -> None:
    assert (await world.refusal(data)).reason == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize(
    ("beginning", "name", "reason"),
    [(b"<html>", "a.pdf", "UNSUPPORTED_MEDIA_TYPE"), (b"%PDF-1.7", "a.pdf.exe", "SUSPICIOUS_FILE_NAME")],
)
async def test_what_the_beginning_decides_is_refused_before_the_end(
    world: World, beginning: bytes, name: str, reason: str
) -> None:
    async def never_ending() -> AsyncIterator[bytes]:
        yield beginning.ljust(2000)
        pytest.fail("the rest was asked for")

    with pytest.raises(InvalidArgument) as refused:
        await world.take_in("acme", name, never_ending())
    assert refused.value.reason == reason


async def test_an_upload_that_breaks_off_leaves_nothing(world: World) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield PDF
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await world.take_in("acme", "a.pdf", cut())
    assert world.store.objects == {}
    assert await world.documents.list("acme", limit=10, after=None) == []


async def standing_still() -> AsyncIterator[bytes]:
    yield PDF
    await asyncio.Event().wait()


async def saying_nothing() -> AsyncIterator[bytes]:
    yield PDF
    while True:
        await asyncio.sleep(0)
        yield b""


@pytest.mark.parametrize("pieces", [standing_still, saying_nothing])
async def test_an_upload_that_stands_still_is_ended(world: World, pieces: Callable[[], AsyncIterator[bytes]]) -> None:
    with pytest.raises(DeadlineExceeded) as ended:
        async with asyncio.timeout(10):
            await world.take_in("acme", "a.pdf", pieces())
    assert ended.value.reason == "UPLOAD_STALLED"
    assert world.store.objects == {}


async def test_bytes_without_a_row_are_adopted(world: World, tmp_path: Path) -> None:
    (tmp_path / "left").write_bytes(b"half of what was written before a crash")
    await world.store.put(f"acme/{SHA256}", tmp_path / "left")
    assert (await world.upload()).created
    assert world.store.objects == {f"acme/{SHA256}": PDF}


async def test_a_store_that_is_down_leaves_no_row() -> None:
    class Down(MemoryObjectStore):
        async def put(self, key: str, source: Path) -> None:
            raise Unavailable("STORE_UNAVAILABLE", "down")

    world = World(Down())
    with pytest.raises(Unavailable):
        await world.upload()
    assert await world.documents.list("acme", limit=10, after=None) == []


async def test_bytes_whose_row_was_never_written_are_swept() -> None:
    class Lost(MemoryDocuments):
        down = False

        @contextlib.asynccontextmanager
        async def locked(self, tenant: str, document_id: str) -> AsyncIterator[DocumentRecord]:
            if self.down:
                raise Unavailable("DATABASE_UNAVAILABLE", "down")
            async with super().locked(tenant, document_id) as record:
                yield record

    class LosesTheDatabase(MemoryObjectStore):
        async def put(self, key: str, source: Path) -> None:
            await super().put(key, source)
            documents.down = True

    documents = Lost()
    world = World(LosesTheDatabase(), documents)
    with pytest.raises(Unavailable):
        await world.upload()
    documents.down = False
    assert world.store.objects
    with pytest.raises(NotFound):
        await world.library.delete("acme", f"documents/{SHA256[:32]}")
    world.clock.time = NOW + RESERVATION
    await world.library.sweep()
    assert world.store.objects  # a slow upload may still be at it
    world.clock.time = NOW + RESERVATION + ERASURE_GRACE + dt.timedelta(seconds=1)
    assert await world.library.sweep() == 1
    assert world.store.objects == {}


async def test_a_deletion_between_the_bytes_and_the_row_loses_nothing() -> None:
    class Raced(MemoryObjectStore):
        puts = 0

        async def put(self, key: str, source: Path) -> None:
            self.puts += 1
            await super().put(key, source)
            if self.puts == 1:
                await self.delete(key)  # what the end of an earlier document's deletion does

    store = Raced()
    assert (await World(store).upload()).created
    assert store.objects == {f"acme/{SHA256}": PDF}
    assert store.puts == 2


async def test_an_object_that_never_stays_ends_the_upload() -> None:
    class Forgetful(MemoryObjectStore):
        async def put(self, key: str, source: Path) -> None:
            pass

    world = World(Forgetful())
    with pytest.raises(Aborted):
        await world.upload()
    assert await world.documents.list("acme", limit=10, after=None) == []


async def test_the_same_file_can_come_back_after_it_was_erased(world: World) -> None:
    first = await world.upload()
    await world.library.delete("acme", first.document.name)
    assert (await world.upload()).created
    assert world.store.objects == {f"acme/{SHA256}": PDF}
