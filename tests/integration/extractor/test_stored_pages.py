"""Pages that are read once, in the real service: again, by many at once, after a kill, and never of locked files."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from prometheus_client import REGISTRY

from pagemesh.extractor.v1 import extraction_pb2
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from services.extractor.domain.flights import WINDOW_PAGES
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Client, Extracted, connected
from tests.integration.summarizer.service_process import ServiceProcess, environment

pytestmark = pytest.mark.asyncio(loop_scope="session")


def parsed() -> float:
    """Pages that parsers have answered in this process so far."""
    return REGISTRY.get_sample_value("pagemesh_extractor_parsed_pages_total", {"outcome": "read"}) or 0.0


async def test_the_second_extraction_reads_what_the_first_one_stored(client: Client) -> None:
    name = (await client.upload(made_pdfs.book(100))).document.name
    first = await client.extract(name, "text", "words")
    before = parsed()
    second = await client.extract(name, "text", "words")
    assert parsed() == before
    assert second.pages == first.pages
    assert second.end == extraction_pb2.ExtractionEnd(pages_sent=100, pages_reused=100)
    some = await client.extract(name, "words", first_page=40, last_page=60)
    assert parsed() == before
    assert some.numbers == list(range(40, 61))
    assert not any(page.text for page in some.pages)
    assert [page.words for page in some.pages] == [page.words for page in first.pages[39:60]]


async def test_many_first_extractions_at_once_share_one_run(client: Client) -> None:
    name = (await client.upload(made_pdfs.book(300))).document.name
    before = parsed()
    for extracted in await asyncio.gather(*(client.extract(name) for _ in range(8))):
        assert extracted.numbers == list(range(1, 301))
    # Two runs that meet may both read what lies between a run and who has fallen behind it.
    assert 300 <= parsed() - before <= 300 + WINDOW_PAGES


async def test_pages_of_a_file_that_needs_a_password_are_parsed_each_time(client: Client) -> None:
    name = (await client.upload(made_pdfs.encrypted("secret"))).document.name
    before = parsed()
    for number in (1, 2):
        extracted = await client.extract(name, password="secret")
        assert extracted.end is not None
        assert extracted.end.pages_reused == 0
        assert parsed() - before == number * len(extracted.pages) > 0
    assert not (await client.get(name)).HasField("page_count")


async def test_a_killed_service_goes_on_behind_the_last_stored_page(
    database: Callable[[str], str], mesh_pki: CertificateAuthority, tmp_path: Path
) -> None:
    dsn, grpc_port, http_port = database("extractor"), pick_free_port(), pick_free_port()
    (tmp_path / "objects").mkdir()
    (tmp_path / "spool").mkdir()
    settings = environment(
        {
            "grpc_listen": f"127.0.0.1:{grpc_port}",
            "http_listen": f"127.0.0.1:{http_port}",
            "tls_dir": mesh_pki.tls_dir("extractor"),
            "database_url": dsn,
            "object_store_url": (tmp_path / "objects").as_uri(),
            "spool_dir": tmp_path / "spool",
            "summarizer_target": "127.0.0.1:1",
            "ledger_target": "127.0.0.1:1",
            "parser_processes": 2,
            "ocr_processes": 0,
        }
    )
    service = ServiceProcess(settings, http_port=http_port, log=tmp_path / "log", service="extractor")
    pages = 1000
    try:
        service.start()
        await _ready(service)
        async with connected(mesh_pki, f"127.0.0.1:{grpc_port}") as client:
            name = (await client.upload(made_pdfs.dense_book(pages))).document.name
            call = client.open_extraction(name, "text", "words", "blocks")
            extracted = Extracted()
            async for response in call:  # and read no further, so that the parser stops
                extracted.take(response)
                if len(extracted.pages) == 100:
                    break
            async with asyncio.timeout(60):
                while await _stored(dsn) < 100:
                    await asyncio.sleep(0.05)
            service.kill()
            call.cancel()
        stored = await _stored(dsn)
        assert 100 <= stored < pages
        service.start()
        await _ready(service)
        async with connected(mesh_pki, f"127.0.0.1:{grpc_port}") as client:
            whole = await client.extract(name, "text", "words", "blocks")
        assert whole.numbers == list(range(1, pages + 1))
        assert whole.end is not None
        assert whole.end.pages_reused == stored
        line = f'pagemesh_extractor_parsed_pages_total{{outcome="read"}} {float(pages - stored)}'
        assert line in (await service.get("/metrics")).decode()
    finally:
        service.kill()


async def _ready(service: ServiceProcess) -> None:
    async with asyncio.timeout(60):
        while not await service.ready():
            await asyncio.sleep(0.05)


async def _stored(dsn: str) -> int:
    """Pages that are in the table."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        rows = await connection.execute(
            "SELECT coalesce(sum(last_page - first_page + 1), 0) FROM extractor.page_segments"
        )
        (found,) = await rows.fetchone() or (0,)
        return int(found)
