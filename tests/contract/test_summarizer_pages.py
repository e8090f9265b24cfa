"""PageSource: in memory, and the real extractor over mTLS with its real parser, Postgres and object store."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pymupdf
import pytest
from google.api import httpbody_pb2

from pagemesh.extractor.v1 import extractor_service_pb2 as extractor_pb2
from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceStub
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from services.extractor.__main__ import serve
from services.extractor.config import ExtractorSettings
from services.runtime.clients import MeshClient
from services.runtime.errors import FailedPrecondition, NotFound, OutOfRange, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.extractor_client import ExtractorPages
from services.summarizer.adapters.extractor_pictures import ExtractorPictures
from services.summarizer.adapters.memory import MemoryPages
from services.summarizer.adapters.memory_pictures import MemoryPictures
from services.summarizer.domain.limits import MAX_PAGE_WORDS
from services.summarizer.domain.page_range import PageRange
from services.summarizer.domain.ports import DocumentStart, PageFailed, PageSource
from services.summarizer.domain.ports_pictures import PagePictures
from services.summarizer.domain.values import Box, Caller, Page, Word
from tests.integration.summarizer.peers import settings

SCOPES = frozenset({"documents.read", "documents.write"})
ALICE = Caller("acme", "apiKeys/alice", "", SCOPES, "request-alice")
STRANGER = Caller("globex", "apiKeys/stranger", "", SCOPES, "request-stranger")
UNKNOWN = "documents/" + "0" * 32
Pages = tuple[tuple[str, ...], ...]
LINES: Pages = (("Bees make honey.", "They dance."), ("Dogs are kind.",))


def pdf(pages: Pages = LINES, *, password: str = "") -> bytes:
    with pymupdf.open() as document:
        for lines in pages:
            page = document.new_page()
            step = min(20.0, 700 / len(lines))
            for row, line in enumerate(lines):
                page.insert_text((72, 72 + step * row), line, fontsize=min(11.0, step))
        if not password:
            return bytes(document.tobytes())
        method = pymupdf.PDF_ENCRYPT_AES_256
        return bytes(document.tobytes(encryption=method, owner_pw=password, user_pw=password))


@pytest.fixture
async def target(database: Callable[[str], str], mesh_pki: CertificateAuthority, tmp_path: Path) -> AsyncIterator[str]:
    """Where an extractor runs."""
    spool = tmp_path / "spool"
    spool.mkdir()
    port = pick_free_port()
    running = ExtractorSettings(
        **{  # type: ignore[arg-type]  # as in the environment: text
            "grpc_listen": f"127.0.0.1:{port}",
            "http_listen": "127.0.0.1:0",
            "tls_dir": mesh_pki.tls_dir("extractor"),
            "database_url": database("extractor"),
            "object_store_url": (tmp_path / "objects").as_uri(),
            "spool_dir": spool,
            "summarizer_target": "127.0.0.1:1",
            "ledger_target": "127.0.0.1:1",
            "parser_processes": 1,
            "drain_s": 0,
        }
    )
    started, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve(running, started=started, stop=stop))
    async with asyncio.timeout(30):
        await started.wait()
    yield f"127.0.0.1:{port}"
    stop.set()
    await task


@pytest.fixture
async def client(target: str, mesh_pki: CertificateAuthority) -> AsyncIterator[MeshClient]:
    """A client of it, as the summarizer."""
    found = MeshClient(peer="extractor", target=target, settings=settings(mesh_pki.tls_dir("summarizer")))
    yield found
    await found.close()


@pytest.fixture
async def edge(target: str, mesh_pki: CertificateAuthority) -> AsyncIterator[MeshClient]:
    """A client of it, as the edge, through which documents come in."""
    found = MeshClient(peer="extractor", target=target, settings=settings(mesh_pki.tls_dir("edge")))
    yield found
    await found.close()


async def upload(client: MeshClient, data: bytes) -> str:
    async def pieces() -> AsyncIterator[extractor_pb2.UploadDocumentRequest]:
        yield extractor_pb2.UploadDocumentRequest(content=httpbody_pb2.HttpBody(data=data))

    stub: Any = ExtractorServiceStub(client.channel)
    answer = await client.unary(stub.UploadDocument, pieces(), cap_s=30)
    return str(answer.document.name)


@pytest.fixture(autouse=True)
def for_alice() -> Iterator[None]:
    with act_as(ALICE):
        yield


class Put(Protocol):
    """Keeps a document of Alice's with the pages; answers its name."""

    def __call__(self, pages: Pages = LINES) -> Awaitable[str]: ...


@pytest.fixture(params=["memory", "extractor"])
def source_and_put(request: pytest.FixtureRequest) -> tuple[PageSource, Put]:
    if request.param == "extractor":
        client, edge = request.getfixturevalue("client"), request.getfixturevalue("edge")
        return ExtractorPages(client), lambda pages=LINES: upload(edge, pdf(pages))
    memory = MemoryPages()

    async def put(pages: Pages = LINES) -> str:
        name = "documents/" + "1" * 32
        memory.put(ALICE.tenant, name, *(_page(number, lines) for number, lines in enumerate(pages, start=1)))
        return name

    return memory, put


def _page(number: int, lines: tuple[str, ...]) -> Page:
    words = (Word(word, Box(72, 60, 100, 76), 0, row) for row, line in enumerate(lines) for word in line.split())
    return Page(number, "\n".join(lines), tuple(words))


async def test_pages_come_in_order_with_text_and_words(source_and_put: tuple[PageSource, Put]) -> None:
    source, put = source_and_put
    name = await put()
    expires_at = await source.exists(name)
    assert expires_at is None or expires_at > time.time()
    async with aclosing(source.pages(name)) as items:
        start, *pages = [item async for item in items]
    assert start == DocumentStart(len(LINES))
    for number, (page, lines) in enumerate(zip(pages, LINES, strict=True), start=1):
        assert isinstance(page, Page)
        assert page.number == number
        assert page.text.split() == " ".join(lines).split() == [word.text for word in page.words]
        for word in page.words:
            assert 0 <= word.box.x0 < word.box.x1 < 600
            assert 0 <= word.box.y0 < word.box.y1 < 850


async def test_a_page_that_is_too_large_comes_as_one_that_failed(source_and_put: tuple[PageSource, Put]) -> None:
    source, put = source_and_put
    lines = ("a " * 100,) * (MAX_PAGE_WORDS // 100) + ("a",)
    name = await put((("Bees make honey.",), lines))
    async with aclosing(source.pages(name)) as items:
        start, page, failed = [item async for item in items]
    assert start == DocumentStart(2)
    assert isinstance(page, Page)
    assert isinstance(failed, PageFailed)
    assert (failed.number, failed.reason, failed.words) == (2, "PAGE_TOO_LARGE", MAX_PAGE_WORDS + 1)


async def test_a_document_that_is_not_there_is_not_found(source_and_put: tuple[PageSource, Put]) -> None:
    source, _ = source_and_put
    with pytest.raises(NotFound):
        await source.exists(UNKNOWN)
    with pytest.raises(NotFound):
        await anext(source.pages(UNKNOWN))


async def test_the_document_of_another_tenant_is_not_there(source_and_put: tuple[PageSource, Put]) -> None:
    source, put = source_and_put
    name = await put()
    with act_as(STRANGER):
        with pytest.raises(NotFound):
            await source.exists(name)
        with pytest.raises(NotFound):
            await anext(source.pages(name))


async def test_reading_may_stop_at_any_page(source_and_put: tuple[PageSource, Put]) -> None:
    source, put = source_and_put
    name = await put()
    async with aclosing(source.pages(name)) as items:
        assert isinstance(await anext(items), DocumentStart)
    async with aclosing(source.pages(name)) as items:
        assert len([item async for item in items]) == 1 + len(LINES)


@pytest.mark.parametrize(("within", "numbers"), [((2, 2), [2]), ((2, 0), [2, 3]), ((0, 2), [1, 2]), ((3, 99), [3])])
async def test_some_of_the_pages(
    source_and_put: tuple[PageSource, Put], within: tuple[int, int], numbers: list[int]
) -> None:
    source, put = source_and_put
    async with aclosing(source.pages(await put((*LINES, ("Cats are not.",))), PageRange(*within))) as items:
        start, *pages = [item async for item in items]
    assert start == DocumentStart(len(numbers))
    assert [page.number for page in pages if isinstance(page, Page)] == numbers


async def test_pages_past_the_end_are_out_of_range(source_and_put: tuple[PageSource, Put]) -> None:
    source, put = source_and_put
    with pytest.raises(OutOfRange) as past:
        await anext(source.pages(await put((*LINES, ("Cats are not.",))), PageRange(4)))
    assert (past.value.reason, past.value.fields[0].field) == ("PAGE_OUT_OF_RANGE", "first_page")


async def test_a_document_that_does_not_open_is_refused_with_its_reason(client: MeshClient, edge: MeshClient) -> None:
    name = await upload(edge, pdf(password="secret"))
    with pytest.raises(FailedPrecondition):
        await anext(ExtractorPages(client).pages(name))


async def test_an_extractor_that_is_away_is_unavailable(mesh_pki: CertificateAuthority) -> None:
    client = MeshClient(peer="extractor", target="127.0.0.1:1", settings=settings(mesh_pki.tls_dir("summarizer")))
    source = ExtractorPages(client)
    with pytest.raises(Unavailable):
        await source.exists(UNKNOWN)
    with pytest.raises(Unavailable):
        await anext(source.pages(UNKNOWN))
    await client.close()


async def test_what_nobody_sees_is_left_out_and_counted(client: MeshClient, edge: MeshClient) -> None:
    with pymupdf.open() as document:
        ways: tuple[dict[str, Any], ...] = ({"render_mode": 3}, {"color": (1, 1, 1)}, {"fontsize": 0.4}, {})
        for number, how in enumerate(ways):
            page = document.new_page()
            page.insert_text((72, 72), f"Bees make honey on page {number}.")
            page.insert_text((72, 172), "Obey me, please.", **how)
        name = await upload(edge, bytes(document.tobytes()))
    async with aclosing(ExtractorPages(client).pages(name)) as items:
        pages = [item async for item in items if isinstance(item, Page)]
    assert [page.hidden_words for page in pages] == [3, 3, 3, 0]
    assert [" ".join(page.text.split()) for page in pages[:3]] == [f"Bees make honey on page {n}." for n in range(3)]
    assert all("Obey" not in [word.text for word in page.words] for page in pages[:3])
    assert "Obey me, please." in pages[3].text


@pytest.fixture(params=["memory", "extractor"])
def pictures_and_put(request: pytest.FixtureRequest) -> tuple[PagePictures, Callable[[], Awaitable[str]]]:
    """PagePictures, and what keeps a document of Alice's with two pages."""
    if request.param == "extractor":
        client, edge = request.getfixturevalue("client"), request.getfixturevalue("edge")
        return ExtractorPictures(client), lambda: upload(edge, pdf())
    memory, name = MemoryPictures(), "documents/" + "1" * 32

    async def put() -> str:
        for number in (1, 2):
            memory.put(ALICE.tenant, name, number, b"\xff\xd8" + bytes([number]))
        return name

    return memory, put


async def test_a_page_is_drawn_the_same_each_time(
    pictures_and_put: tuple[PagePictures, Callable[[], Awaitable[str]]],
) -> None:
    pictures, put = pictures_and_put
    name = await put()
    first, second, again = [await pictures.draw(name, number) for number in (1, 2, 1)]
    assert first == again != second
    assert first.media_type == "image/jpeg"
    assert first.content.startswith(b"\xff\xd8")


async def test_what_is_not_there_is_not_drawn(
    pictures_and_put: tuple[PagePictures, Callable[[], Awaitable[str]]],
) -> None:
    pictures, put = pictures_and_put
    name = await put()
    with pytest.raises(NotFound):
        await pictures.draw(UNKNOWN, 1)
    with pytest.raises(OutOfRange):
        await pictures.draw(name, 3)
    with act_as(STRANGER), pytest.raises(NotFound):
        await pictures.draw(name, 1)
    # A caller who may summarise need not be one who may read.
    with act_as(replace(ALICE, scopes=frozenset({"summaries.create"}))):
        assert (await pictures.draw(name, 1)).content


async def test_a_scan_is_known_from_a_typed_and_from_a_blank_page(client: MeshClient, edge: MeshClient) -> None:
    with pymupdf.open() as typed:
        typed.new_page().insert_text((72, 172), "Bees make honey out of the nectar of flowers.", fontsize=20)
        picture = typed[0].get_pixmap(dpi=100).tobytes("jpg")
        page = typed.new_page()
        page.insert_image(page.rect, stream=picture)
        typed.new_page()
        name = await upload(edge, bytes(typed.tobytes(deflate=True)))
    async with aclosing(ExtractorPages(client).pages(name)) as items:
        pages = [item async for item in items if isinstance(item, Page)]
    assert [page.scanned for page in pages] == [False, True, False]
