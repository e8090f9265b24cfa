"""What an upload stores, what it refuses, and what it does beside a deletion."""

import asyncio
import contextlib
import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.extractor.adapters.memory import MemoryDocuments, MemoryObjectStore
from services.extractor.domain.ports import DocumentRecord
from services.extractor.domain.retention import KEPT_FOR, TEMPORARY_FOR, Retention, Term
from services.extractor.domain.upload import RESERVATION
from services.runtime.errors import Aborted, DeadlineExceeded, InvalidArgument, NotFound, PagemeshError, Unavailable
from tests.unit.extractor.keeping import LIMIT, PDF, BreakableStore, World
from tests.unit.extractor.scripted import NOW

SHA256 = hashlib.sha256(PDF).hexdigest()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def refusal(world: World, data: bytes, name: str = "a.pdf") -> PagemeshError:
    with pytest.raises(PagemeshError) as refused:
        await world.upload(data, name)
    assert world.store.objects == {}
    return refused.value


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


async def test_bytes_that_the_store_lost_come_back_with_the_file(world: World) -> None:
    first = await world.upload()
    world.store.objects.clear()
    again = await world.upload()
    assert (again.created, again.document) == (False, first.document)
    assert world.store.objects == {f"acme/{SHA256}": PDF}


async def test_another_tenant_has_its_own(world: World) -> None:
    await world.upload()
    assert (await world.upload(tenant="other")).created
    assert set(world.store.objects) == {f"acme/{SHA256}", f"other/{SHA256}"}


async def test_an_empty_upload_is_refused(world: World) -> None:
    refused = await refusal(world, b"")
    assert refused.reason == "EMPTY_FILE"
    assert refused.fields[0].field == "content"


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
    assert (await refusal(world, data)).reason == "UNSUPPORTED_MEDIA_TYPE"


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


async def test_an_upload_that_drips_gives_its_place_up(world: World) -> None:
    async def dripping() -> AsyncIterator[bytes]:
        yield PDF
        while True:
            await asyncio.sleep(0.005)  # ten times in what it may wait
            yield b"."

    with pytest.raises(DeadlineExceeded) as ended:
        await world.take_in("acme", "a.pdf", dripping())
    assert ended.value.reason == "UPLOAD_STALLED"
    assert world.store.objects == {}


async def test_bytes_without_a_row_are_adopted(world: World, tmp_path: Path) -> None:
    (tmp_path / "left").write_bytes(b"half of what was written before a crash")
    await world.store.put(f"acme/{SHA256}", tmp_path / "left")
    assert (await world.upload()).created
    assert world.store.objects == {f"acme/{SHA256}": PDF}


async def test_a_store_that_is_down_leaves_no_row(tmp_path: Path) -> None:
    class Down(MemoryObjectStore):
        async def put(self, key: str, source: Path) -> None:
            raise Unavailable("STORE_UNAVAILABLE", "down")

    world = World(tmp_path, store=Down())
    with pytest.raises(Unavailable):
        await world.upload()
    assert await world.documents.list("acme", limit=10, after=None) == []


async def test_bytes_whose_row_was_never_written_are_swept(tmp_path: Path) -> None:
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
    world = World(tmp_path, store=LosesTheDatabase(), documents=documents)
    with pytest.raises(Unavailable):
        await world.upload()
    documents.down = False
    assert world.store.objects
    with pytest.raises(NotFound):
        await world.eraser.delete("acme", f"documents/{SHA256[:32]}", actor="me")
    world.clock.time = NOW + RESERVATION - dt.timedelta(seconds=1)
    await world.worker.round()
    assert world.store.objects  # a slow upload may still be at it
    world.clock.time = NOW + RESERVATION
    await world.worker.round()
    assert world.store.objects == {}
    assert world.failures == []
    assert await world.receipts() == []  # nobody ever saw it


async def test_a_deletion_between_the_bytes_and_the_row_loses_nothing(tmp_path: Path) -> None:
    class Raced(MemoryObjectStore):
        puts = 0

        async def put(self, key: str, source: Path) -> None:
            self.puts += 1
            await super().put(key, source)
            if self.puts == 1:
                await self.delete(key)  # what the end of an earlier document's deletion does

    store = Raced()
    assert (await World(tmp_path, store=store).upload()).created
    assert store.objects == {f"acme/{SHA256}": PDF}
    assert store.puts == 2


async def test_an_object_that_never_stays_ends_the_upload(tmp_path: Path) -> None:
    class Forgetful(MemoryObjectStore):
        async def put(self, key: str, source: Path) -> None:
            pass

    world = World(tmp_path, store=Forgetful())
    with pytest.raises(Aborted):
        await world.upload()
    assert await world.documents.list("acme", limit=10, after=None) == []


async def test_the_same_file_can_come_back_after_it_was_erased(world: World) -> None:
    first = await world.upload()
    await world.eraser.delete("acme", first.document.name, actor="me")
    assert (await world.upload()).created
    assert world.store.objects == {f"acme/{SHA256}": PDF}


HOUR = dt.timedelta(hours=1)
EPHEMERAL, TEMPORARY, KEPT = Retention.EPHEMERAL, Retention.TEMPORARY, Retention.KEPT


@pytest.mark.parametrize(
    ("retention", "expire_time", "term"),
    [
        (None, None, Term(TEMPORARY, NOW + TEMPORARY_FOR)),
        (TEMPORARY, None, Term(TEMPORARY, NOW + TEMPORARY_FOR)),
        (EPHEMERAL, None, Term(EPHEMERAL, NOW + HOUR)),
        (KEPT, None, Term(KEPT, NOW + KEPT_FOR)),
        (KEPT, NOW + 5 * HOUR, Term(KEPT, NOW + 5 * HOUR)),
        (KEPT, NOW + dt.timedelta(days=366), Term(KEPT, NOW + dt.timedelta(days=366))),
    ],
)
async def test_a_document_is_kept_as_was_asked(
    world: World, retention: Retention | None, expire_time: dt.datetime | None, term: Term
) -> None:
    uploaded = await world.upload(retention=retention, expire_time=expire_time)
    assert uploaded.document.term == term
    assert (await world.library.get("acme", uploaded.document.name)).term == term


@pytest.mark.parametrize(
    ("retention", "expire_time", "reason"),
    [
        (None, NOW + HOUR, "EXPIRE_TIME_WITHOUT_KEPT"),
        (EPHEMERAL, NOW + HOUR, "EXPIRE_TIME_WITHOUT_KEPT"),
        (KEPT, NOW, "EXPIRE_TIME_OUT_OF_RANGE"),
        (KEPT, NOW - HOUR, "EXPIRE_TIME_OUT_OF_RANGE"),
        (KEPT, NOW + dt.timedelta(days=367), "EXPIRE_TIME_OUT_OF_RANGE"),
    ],
)
async def test_a_term_that_cannot_be_is_refused_before_the_first_byte(
    world: World, retention: Retention | None, expire_time: dt.datetime, reason: str
) -> None:
    async def unread() -> AsyncIterator[bytes]:
        nobody_should = True
        assert not nobody_should
        yield b""

    with pytest.raises(InvalidArgument) as refused:
        await world.take_in("acme", "a.pdf", unread(), retention=retention, expire_time=expire_time)
    assert refused.value.reason == reason
    assert refused.value.fields[0].field == "expire_time"


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ((EPHEMERAL, None), (TEMPORARY, None), Term(TEMPORARY, NOW + HOUR / 2 + TEMPORARY_FOR)),
        ((TEMPORARY, None), (EPHEMERAL, None), Term(TEMPORARY, NOW + TEMPORARY_FOR)),
        ((TEMPORARY, None), (TEMPORARY, None), Term(TEMPORARY, NOW + HOUR / 2 + TEMPORARY_FOR)),
        ((KEPT, NOW + 2 * HOUR), (TEMPORARY, None), Term(KEPT, NOW + HOUR / 2 + TEMPORARY_FOR)),
        ((KEPT, NOW + 99 * HOUR), (TEMPORARY, None), Term(KEPT, NOW + 99 * HOUR)),
        ((KEPT, NOW + 99 * HOUR), (KEPT, NOW + 2 * HOUR), Term(KEPT, NOW + 99 * HOUR)),
        ((TEMPORARY, None), (KEPT, NOW + 2 * HOUR), Term(KEPT, NOW + TEMPORARY_FOR)),
    ],
)
async def test_the_same_bytes_keep_the_longer_of_both(
    world: World,
    first: tuple[Retention, dt.datetime | None],
    second: tuple[Retention, dt.datetime | None],
    kept: Term,
) -> None:
    await world.upload(retention=first[0], expire_time=first[1])
    world.clock.time = NOW + HOUR / 2
    again = await world.upload(retention=second[0], expire_time=second[1])
    assert not again.created
    assert again.document.term == kept
    assert (await world.library.get("acme", again.document.name)).term == kept


async def test_bytes_that_are_being_erased_come_back_when_that_is_complete(world: World) -> None:
    first = await world.upload()
    assert isinstance(world.store, BreakableStore)
    world.store.down = True
    with pytest.raises(Unavailable):
        await world.eraser.delete("acme", first.document.name, actor="me")
    with pytest.raises(Unavailable) as told:
        await world.upload()
    assert told.value.reason == "DELETION_UNFINISHED"
    world.store.down = False
    assert (await world.upload()).created
    assert len(await world.receipts()) == 1
    assert world.store.objects == {f"acme/{SHA256}": PDF}
    await world.worker.round()
    assert world.store.objects == {f"acme/{SHA256}": PDF}
