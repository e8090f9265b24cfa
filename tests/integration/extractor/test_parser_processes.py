"""The parser processes behind the service: killed, cancelled, starved, queued for, never more than there should be."""

import asyncio
import itertools
import signal
from typing import Any

import grpc
import psutil
import pytest
import structlog
from prometheus_client import REGISTRY

from services.extractor.adapters import parser_parent
from services.extractor.adapters.parser_parent import ParserParent
from services.extractor.adapters.parser_pool import ParserLimits, ParserPool
from services.extractor.adapters.parser_protocol import CREDITS, CREDITS_AT_ONCE
from services.runtime.errors import InvalidArgument, NotFound, PagemeshError
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Extracted, Service, Start, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENT_S = 60
BUFFER_BYTES = 4 * 1024 * 1024
"""More than gRPC and the kernel keep of a stream whose reader stands still."""
SLOW_PAGE = b"".join(made_pdfs.line("x " * 60, y) for y in range(1, 781, 3))
"""About 16,000 words, which take some 30 ms."""


async def test_a_process_that_is_killed_costs_a_retry_and_no_page(service: Service) -> None:
    name = (await service.client.upload(made_pdfs.book(150))).document.name
    extracted = Extracted()
    stream = service.client.open_extraction(name, "text")
    async for response in stream:
        extracted.take(response)
        if extracted.numbers[-1:] == [5]:
            for process in service.parsers():
                process.send_signal(signal.SIGKILL)
    assert extracted.numbers == list(range(1, 151))
    assert extracted.failed == []


async def test_the_parent_of_the_parsers_is_replaced_when_it_dies(service: Service) -> None:
    name = (await service.client.upload(made_pdfs.book(3))).document.name
    before = service.parser_parent()
    children = before.children()
    before.kill()
    await eventually(lambda: not any(child.is_running() for child in children), "its children are gone")
    await eventually(lambda: any(p.pid != before.pid for p in psutil.Process().children()), "there is another parent")
    assert (await service.client.extract(name)).numbers == [1, 2, 3]


async def test_whoever_forks_while_the_parent_is_put_away_gets_a_new_one() -> None:
    parent = ParserParent(memory_bytes=4 << 30, on_exit=lambda *_: None)
    await parent.start()
    first = parent.pid
    stopping = asyncio.create_task(parent.stop())
    pid, ours = await asyncio.create_task(parent.fork())
    try:
        await stopping
        assert parent.pid not in (None, first)
        assert psutil.Process(pid).ppid() == parent.pid
    finally:
        ours.close()
        await parent.stop()


@pytest.mark.usefixtures("no_clock")
async def test_an_error_in_the_middle_is_an_event_and_the_status(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nine pages that hang the second is one too many."""
    monkeypatch.setattr("services.extractor.__main__._LOST_PAGES", 1)
    service = await start(page_timeout_s=0.2)
    forms = made_pdfs.with_laughing_page(0, 0)
    hanging = forms.replace(b"/Count 1/Kids[", b"/Count 9/Kids[" + b"23 0 R " * 8)
    name = (await service.client.upload(hanging)).document.name
    kinds = []
    stream = service.client.open_extraction(name)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async for response in stream:
            kinds.append(response.WhichOneof("event"))
    assert ended.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert kinds == ["start", "failed_page", "error"]


async def test_a_document_that_is_deleted_while_it_is_read_is_read_to_its_end_or_not_found(service: Service) -> None:
    name = (await service.client.upload(made_pdfs.book(600))).document.name
    extracted = Extracted()
    stream = service.client.open_extraction(name)
    async for response in stream:
        extracted.take(response)
        if extracted.numbers == [1]:
            await service.client.delete(name)
    assert extracted.numbers == list(range(1, 601))
    assert service.stored() == set()
    with pytest.raises(NotFound):
        await service.client.extract(name)


async def test_a_queue_that_is_full_says_when_to_come_back(start: Start) -> None:
    service = await start(page_timeout_s=60, parser_processes=1)
    # Those who read one document share its parser: it takes many documents to fill the queue.
    name, *others = [await uploaded_copy(service, made_pdfs.with_laughing_page(0, 0), copy) for copy in range(34)]
    waiting = [service.client.open_extraction(other) for other in others]
    first = [asyncio.create_task(stream.read()) for stream in waiting]
    refused: PagemeshError | None = None
    for _ in range(200):
        try:
            await service.client.extract(name, timeout_s=1)
        except PagemeshError as exc:
            refused = exc
            if exc.reason == "PARSER_BUSY":
                break
    assert refused is not None
    assert refused.reason == "PARSER_BUSY"
    assert refused.retry_after_s
    for stream in waiting:
        stream.cancel()
    await asyncio.gather(*first, return_exceptions=True)
    assert (await service.client.upload_and_extract(made_pdfs.book(2), timeout_s=PATIENT_S)).numbers == [1, 2]


async def uploaded_copy(service: Service, data: bytes, copy: int) -> str:
    """A document of its own with the same pages."""
    name: str = (await service.client.upload(data + b"\n%% copy %d\n" % copy)).document.name
    return name


@pytest.mark.usefixtures("no_clock")
async def test_nothing_is_left_behind(start: Start) -> None:
    service = await start(page_timeout_s=0.3)
    client = service.client
    good = (await client.upload(made_pdfs.book(20))).document.name
    bad = (await client.upload(made_pdfs.with_laughing_page(1, 1))).document.name

    async def round_of_everything() -> None:
        await asyncio.gather(
            client.extract(good), client.extract(bad), client.of("other").upload_and_extract(made_pdfs.book(2))
        )
        stream = client.open_extraction(good)
        await stream.read()
        stream.cancel()
        with pytest.raises(InvalidArgument):
            await client.upload(b"not a PDF")

    await round_of_everything()
    here = psutil.Process()
    descriptors, threads = here.num_fds(), here.num_threads()
    for _ in range(4):
        await round_of_everything()
    await eventually(lambda: here.num_fds() <= descriptors + 2, "no more descriptors than before")
    assert here.num_threads() <= threads + 8  # asyncio's threads for files come up to its own limit
    await eventually(lambda: len(service.parsers()) <= 3, "as many processes as slots and a spare one")
    assert service.spooled() == []
    zombies = [p for p in service.parser_parent().children() if p.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []


async def test_ten_thousand_pages_are_read_in_flat_memory(service: Service) -> None:
    name = (await service.client.upload(made_pdfs.book_of_many_fonts(10_000))).document.name

    async def peak_rss_bytes(last_page: int) -> int:
        peak = 0
        numbers = itertools.count(1)
        async for response in service.client.open_extraction(name, "text", last_page=last_page, timeout_s=100):
            if response.WhichOneof("event") == "page":
                assert response.page.number == next(numbers)
                if response.page.number % 50 == 0:
                    peak = max(peak, *(process.memory_info().rss for process in service.parsers()))
        assert next(numbers) == last_page + 1
        return peak

    few = await peak_rss_bytes(500)
    many = await peak_rss_bytes(10_000)
    # Left open, the document would add 500 MB.
    assert many < few + 60 * 1024 * 1024


def pages_parsed() -> float:
    return REGISTRY.get_sample_value("pagemesh_extractor_page_seconds_count") or 0.0


async def test_a_process_is_a_few_pages_ahead_of_its_reader_and_no_more(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that does not read stops the parser, once what lies between them is full."""
    pools: list[ParserPool] = []

    class SeenPool(ParserPool):
        def __init__(self, limits: ParserLimits) -> None:
            super().__init__(limits)
            pools.append(self)

    monkeypatch.setattr("services.extractor.__main__.ParserPool", SeenPool)
    service = await start()
    name = (await service.client.upload(made_pdfs.document([SLOW_PAGE] * 120))).document.name
    parsed_before = pages_parsed()
    stream = service.client.open_extraction(name, "words", timeout_s=100)
    await stream.read()
    (process,) = pools[0]._busy
    # It has used its credits up, and so many of its pages lie there that it gets none: none follows until one is read.
    unread = CREDITS - CREDITS_AT_ONCE
    await eventually(lambda: len(process._answers) >= unread and not process.working, "the parser waits")
    page = await stream.read()
    assert pages_parsed() - parsed_before <= 1 + CREDITS + CREDITS_AT_ONCE + BUFFER_BYTES // page.ByteSize()
    pages = 1
    while (response := await stream.read()) is not grpc.aio.EOF:
        pages += response.WhichOneof("event") == "page"
    assert pages == 120


async def test_a_reader_that_stands_still_does_not_keep_others_waiting(start: Start) -> None:
    service = await start(parser_processes=1)
    big = (await service.client.upload(made_pdfs.document([SLOW_PAGE] * 60))).document.name
    small = (await service.client.upload(made_pdfs.book(2))).document.name
    still = service.client.open_extraction(big, "words", timeout_s=100)
    await still.read()
    assert (await service.client.extract(small, timeout_s=PATIENT_S)).numbers == [1, 2]
    numbers = []
    while (response := await still.read()) is not grpc.aio.EOF:
        if response.WhichOneof("event") == "page":
            numbers.append(response.page.number)
    assert numbers == list(range(1, 61))


async def test_a_tenant_whose_pages_take_long_does_not_keep_another_from_a_parser(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.extractor.__main__._SLICE_S", 0.2)
    service = await start(parser_processes=2)
    slow = [await uploaded_copy(service, made_pdfs.document([SLOW_PAGE] * 75), copy) for copy in range(2)]
    streams = [service.client.open_extraction(name, "words", timeout_s=100) for name in slow]
    taken = [asyncio.create_task(in_order(stream)) for stream in streams]
    await eventually(lambda: REGISTRY.get_sample_value("pagemesh_extractor_parsers_busy") == 2, "all parsers are taken")
    ends_before = abandoned()
    quick = await service.client.of("other").upload_and_extract(made_pdfs.book(2), timeout_s=PATIENT_S)
    assert quick.numbers == [1, 2]
    assert not any(task.done() for task in taken)
    assert await asyncio.gather(*taken) == [list(range(1, 76))] * 2
    assert abandoned() == ends_before  # a process that is asked to stop lives on


async def in_order(stream: Any) -> list[int]:
    return [response.page.number async for response in stream if response.WhichOneof("event") == "page"]


def abandoned() -> float:
    return REGISTRY.get_sample_value("pagemesh_extractor_parser_ends_total", {"reason": "abandoned"}) or 0.0


async def test_the_death_of_the_parent_is_told_of_nobodys_request(monkeypatch: pytest.MonkeyPatch) -> None:
    # A service that ran in this process before has bound the module's own for good.
    monkeypatch.setattr(parser_parent, "log", structlog.get_logger())
    parent = ParserParent(memory_bytes=4 << 30, on_exit=lambda *_: None)
    with structlog.contextvars.bound_contextvars(request_id="first", tenant="acme"):
        await parent.start()
    assert parent.pid is not None
    try:
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
            psutil.Process(parent.pid).kill()
            await eventually(lambda: not parent.running, "its death is seen")
        (line,) = lines
        assert line["event"] == "parser_parent_died"
        assert not {"request_id", "tenant"} & set(line)
    finally:
        await parent.stop()
