"""What the extractor needs goes away while it works: a typed error with a time to come back, or nothing at all for who
was reading; nothing half-written; and afterwards everything works by itself."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from pagemesh_cli.stack.certificates import CertificateAuthority
from services.extractor.domain.page_keeper import PageKeeper
from services.runtime.errors import Unavailable
from tests.conftest import Databases
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Extracted, Service, Start, eventually, pieces, running
from tests.integration.summarizer.tcp_proxy import TcpProxy

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL = made_pdfs.book(2)
LARGE = made_pdfs.book(1).ljust(4_000_000, b"\n")


@contextmanager
def small_disk(path: Path, size: str = "2m") -> Iterator[Path]:
    """A disk of its own below `path`; skips where that is not allowed."""
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a disk of a test's own needs the right to mount one")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as path:
        yield path


async def unavailable(call: Any, reason: str) -> None:
    with pytest.raises(Unavailable) as told:
        await call
    assert told.value.reason == reason
    assert told.value.retry_after_s


async def test_a_spool_that_is_full_costs_the_upload_that_fills_it(start: Start, disk: Path) -> None:
    service = await start(spool_dir=disk)
    await unavailable(service.client.upload(LARGE), "SPOOL_UNAVAILABLE")
    assert list(disk.iterdir()) == []
    assert service.stored() == set()
    assert (await service.client.upload_and_extract(SMALL)).numbers == [1, 2]


async def test_a_spool_that_is_full_is_told_to_who_reads_out_of_s3(start: Start, disk: Path, s3_bucket: str) -> None:
    """It is the service's own disk that is full, and not the object store."""
    service = await start(spool_dir=disk, object_store_url=f"s3://{s3_bucket}")
    name = (await service.client.upload(SMALL.ljust(1_200_000, b"\n"))).document.name
    filler = disk / "filler"
    filler.write_bytes(bytes(1_200_000))
    await unavailable(service.client.extract(name), "SPOOL_UNAVAILABLE")
    assert list(disk.iterdir()) == [filler]
    filler.unlink()
    assert (await service.client.extract(name)).numbers == [1, 2]


async def test_an_object_store_that_is_full_costs_the_upload_that_fills_it(start: Start, disk: Path) -> None:
    objects = disk / "objects"
    service = await start(object_store_url=objects.as_uri())
    await unavailable(service.client.upload(LARGE), "STORE_UNAVAILABLE")
    assert [path for path in objects.rglob("*") if path.is_file()] == []
    assert (await service.client.list()).documents == []
    assert service.spooled() == []
    assert (await service.client.upload_and_extract(SMALL)).numbers == [1, 2]


async def test_an_object_store_that_is_read_only_is_read(start: Start, disk: Path) -> None:
    service = await start(object_store_url=(disk / "objects").as_uri())
    name = (await service.client.upload(SMALL)).document.name
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    await unavailable(service.client.upload(made_pdfs.book(3)), "STORE_UNAVAILABLE")
    await unavailable(service.client.delete(name), "DELETION_UNFINISHED")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert (await service.client.upload_and_extract(made_pdfs.book(3))).numbers == [1, 2, 3]
    assert (await service.client.delete(name)).objects_deleted == 1


async def test_an_object_store_that_is_away_is_told_to_who_extracts(service: Service) -> None:
    name = (await service.client.upload(SMALL)).document.name
    aside = service.objects.with_name("aside")
    service.objects.rename(aside)
    service.objects.write_text("in the way")
    await unavailable(service.client.extract(name), "STORE_UNAVAILABLE")
    service.objects.unlink()
    aside.rename(service.objects)
    assert (await service.client.extract(name)).numbers == [1, 2]


async def test_a_database_that_is_away_is_told_and_costs_nothing_for_good(
    start: Start, database: Callable[[str], str]
) -> None:
    dsn = urlsplit(database("extractor"))
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(TcpProxy(dsn.hostname or "", dsn.port or 0).running())
        account = dsn.netloc.rpartition("@")[0]
        service = await start(database_url=dsn._replace(netloc=f"{account}@127.0.0.1:{wire.port}").geturl())
        name = (await service.client.upload(SMALL)).document.name
        wire.cut()
        calls = (service.client.extract(name), service.client.delete(name), service.client.list())
        for told in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(told, Unavailable)
            assert told.reason == "DATABASE_UNAVAILABLE"
            assert told.retry_after_s
        wire.mend()
        assert (await service.client.extract(name)).numbers == [1, 2]
        assert (await service.client.delete(name)).objects_deleted == 1
        assert service.stored() == set()


async def test_a_database_that_says_nothing_is_told_of_before_the_caller_gives_up(
    start: Start, database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections stay open and what is sent is taken: nothing but a time of our own ends such a wait."""
    monkeypatch.setattr("services.database.pool.ANSWER_TIMEOUT_S", 1.0)
    dsn = urlsplit(database("extractor"))
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(TcpProxy(dsn.hostname or "", dsn.port or 0).running())
        account = dsn.netloc.rpartition("@")[0]
        service = await start(database_url=dsn._replace(netloc=f"{account}@127.0.0.1:{wire.port}").geturl())
        client = service.client
        name = (await client.upload(SMALL)).document.name
        # As many connections as calls, each of which finds out for itself.
        await asyncio.gather(*(client.list() for _ in range(4)))
        wire.freeze()
        calls = (client.extract(name), client.delete(name), client.upload(LARGE), client.get(name))
        for told in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(told, Unavailable), told
            assert told.reason == "DATABASE_UNAVAILABLE"
            assert told.retry_after_s
        wire.mend()
        assert (await client.extract(name)).numbers == [1, 2]
        assert service.spooled() == []
        assert (await client.delete(name)).objects_deleted == 1


async def test_a_database_that_goes_away_amid_an_upload_leaves_nothing_to_see(
    start: Start, database: Callable[[str], str]
) -> None:
    dsn = urlsplit(database("extractor"))
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(TcpProxy(dsn.hostname or "", dsn.port or 0).running())
        account = dsn.netloc.rpartition("@")[0]
        service = await start(database_url=dsn._replace(netloc=f"{account}@127.0.0.1:{wire.port}").geturl())

        async def cut_midway() -> Any:
            for number, piece in enumerate(pieces(LARGE, chunk=500_000)):
                if number == 4:
                    wire.cut()
                yield piece

        await unavailable(service.client.upload_messages(cut_midway()), "DATABASE_UNAVAILABLE")
        assert service.spooled() == []
        wire.mend()
        assert (await service.client.list()).documents == []
        assert (await service.client.upload(LARGE)).created


async def test_the_parent_of_the_parsers_dies_amid_an_extraction_which_goes_on(service: Service) -> None:
    name = (await service.client.upload(made_pdfs.book(1500))).document.name
    extracted = Extracted()
    parent = service.parser_parent()
    async for response in service.client.open_extraction(name, "text"):
        extracted.take(response)
        if extracted.numbers[-1:] == [7]:
            parent.kill()
    assert extracted.numbers == list(range(1, 1501))
    assert extracted.failed == []
    assert service.parser_parent().pid != parent.pid


async def test_a_service_whose_pages_nobody_stores_any_more_ends(
    postgres_server: Databases, mesh_pki: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would answer for a while, and then stand still for ever where too much waits to be stored."""
    broken = asyncio.Event()

    async def breaks(keeper: PageKeeper) -> None:
        await broken.wait()
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(PageKeeper, "run", breaks)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="unforeseen")):
        async with running(postgres_server, mesh_pki, tmp_path) as service:
            assert (await service.client.upload_and_extract(SMALL)).numbers == [1, 2]
            broken.set()
            # Its parsers go with it.
            await eventually(lambda: {p.pid for p in psutil.Process().children()} <= service.strangers, "it ends")
