"""Recognition of text by real processes: what is found and where, what they may cost, and what is left of them."""

import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.ocr_page import RecognisedPageWriter
from services.extractor.adapters.ocr_pool import OcrLimits, OcrPool
from services.extractor.adapters.parser_pool import ParserLimits, ParserPool
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import FailedPage, Page, PageFault, PageFlag, Part
from services.extractor.domain.ports import ParseTask, RecogniseTask
from services.extractor.domain.recognise import RecognisePage, RecognitionLimits
from services.runtime.errors import ResourceExhausted, Unavailable
from tests.bursts import each
from tests.integration.extractor import made_scans
from tests.integration.extractor.conftest import eventually
from tests.integration.extractor.made_scans import Boxes

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEAR_PT = 5.0
LIMITS = OcrLimits(
    processes=2,
    budget_s=20,
    cpu_s=40,
    wall_s=100,
    memory_bytes=1 << 30,
    max_waiting=8,
    idle_s=60,
    needs_sandbox=sys.platform == "linux",
)
PARSER_LIMITS = ParserLimits(
    processes=2,
    page_cpu_s=10,
    page_wall_s=40,
    memory_bytes=512 << 20,
    recycle_bytes=256 << 20,
    recycle_pages=1000,
    max_waiting=16,
    stall_s=20,
    slice_s=10,
    needs_sandbox=False,
)


class Recognition:
    """The whole of it, and the processes behind it."""

    def __init__(self, parser: ParserPool, limits: OcrLimits) -> None:
        self.parser = parser
        self.ocr = OcrPool(limits)
        self._recognise = RecognisePage(
            parser=parser,
            reader=self.ocr,
            writer=RecognisedPageWriter(guess_language=lambda _: ""),
            limits=RecognitionLimits(dpi=200, max_side_px=4096, min_confidence=0.5),
        )

    async def __call__(
        self, data: bytes, media_type: MediaType = MediaType.PDF, *, page: int = 1, wait_s: float | None = 60
    ) -> Page | FailedPage:
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            task = ParseTask("acme", file, media_type, page, page, Part.TEXT, wait_s=60)
            async with self.parser.parse(task) as events:
                (parsed,) = [event async for event in each(events) if isinstance(event, Page)]
            return await self._recognise.recognise(RecogniseTask("acme", file, media_type, page, parsed, wait_s=wait_s))

    async def page(self, data: bytes, media_type: MediaType = MediaType.PDF) -> page_pb2.Page:
        answer = await self(data, media_type)
        assert isinstance(answer, Page)
        return page_pb2.Page.FromString(answer.content)

    def parents(self) -> list[psutil.Process]:
        """The process that has the models loaded, if it runs."""
        pid = self.ocr._parent.pid
        return [child for child in psutil.Process().children() if child.pid == pid]

    def readers(self) -> list[psutil.Process]:
        return [child for parent in self.parents() for child in parent.children()]

    async def reader_at_work(self) -> psutil.Process:
        working: list[psutil.Process] = []

        def found() -> bool:
            working.extend(process for process in self.readers() if cpu_s(process) > 0.1)
            return bool(working)

        await eventually(found, "a picture is being read")
        return working[0]


def cpu_s(process: psutil.Process) -> float:
    try:
        return float(process.cpu_times().user)
    except psutil.NoSuchProcess:
        return 0.0


Make = Callable[..., Recognition]
ReadPage = Callable[..., Awaitable[page_pb2.Page]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def parser() -> AsyncIterator[ParserPool]:
    pool = ParserPool(PARSER_LIMITS)
    await pool.start()
    yield pool
    await pool.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def make(parser: ParserPool) -> AsyncIterator[Make]:
    """`make(**limits)` is a recognition for this test alone, with processes of its own."""
    made: list[Recognition] = []

    def recognition(**changes: float) -> Recognition:
        made.append(Recognition(parser, replace(LIMITS, **changes)))  # type: ignore[arg-type]
        return made[-1]

    yield recognition
    for one in made:
        await one.ocr.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def read_page(parser: ParserPool) -> AsyncIterator[ReadPage]:
    """Reads one page; for tests that leave the processes alone."""
    recognition = Recognition(parser, LIMITS)
    yield recognition.page
    await recognition.ocr.stop()


def assert_found(page: page_pb2.Page, boxes: Boxes) -> None:
    """Every word is there, and each that is there once stands where it was drawn."""
    assert page.text.split() == [word for _, line in made_scans.TEXT for word in line.split()]
    assert " ".join(page.markdown.split()) == " ".join(page.text.split())
    assert [word.text for word in page.words] == page.text.split()
    assert list(page.flags) == [page_pb2.PAGE_FLAG_OCR]
    assert boxes
    for word in page.words:
        if word.text in boxes:
            found = (word.box.x0, word.box.y0, word.box.x1, word.box.y1)
            assert found == pytest.approx(boxes[word.text], abs=NEAR_PT), word.text


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
async def test_the_words_of_a_scan_are_found_where_they_stand_however_it_was_laid(
    read_page: ReadPage, turned: int
) -> None:
    data, boxes = made_scans.scanned_pdf(turned)
    assert_found(await read_page(data), boxes)


@pytest.mark.parametrize("shown", [90, 180])
async def test_boxes_are_those_of_the_page_as_it_is_shown(read_page: ReadPage, shown: int) -> None:
    data, boxes = made_scans.scanned_pdf(turned=360 - shown, shown=shown)
    page = await read_page(data)
    assert (page.width_pt, page.height_pt) == pytest.approx((made_scans.WIDTH_PT, made_scans.HEIGHT_PT), abs=1)
    assert_found(page, boxes)


@pytest.mark.parametrize(("kind", "media_type"), [("jpeg", MediaType.JPEG), ("png", MediaType.PNG)])
async def test_the_words_of_an_image_are_found_where_they_stand(
    read_page: ReadPage, kind: str, media_type: MediaType
) -> None:
    data, boxes = made_scans.image_file(kind)
    page = await read_page(data, media_type)
    size = (page.width_pt, page.height_pt)
    assert size == pytest.approx((made_scans.WIDTH_PT, made_scans.HEIGHT_PT), abs=1)
    assert_found(page, boxes)


async def test_a_page_without_text_says_so(read_page: ReadPage) -> None:
    page = await read_page(made_scans.image_of_nothing(), MediaType.PNG)
    assert set(page.flags) == {page_pb2.PAGE_FLAG_OCR, page_pb2.PAGE_FLAG_NO_TEXT}
    assert page.text == page.markdown == ""


async def test_a_picture_with_too_much_in_it_is_cut(make: Make) -> None:
    answer = await make(budget_s=0.5)(made_scans.crowded(), MediaType.PNG)
    assert isinstance(answer, Page)
    assert PageFlag.TRUNCATED in answer.flags


@pytest.mark.parametrize(
    ("limit", "fault"),
    [
        ({"cpu_s": 0.2}, PageFault.TIMEOUT),
        ({"wall_s": 0.2}, PageFault.TIMEOUT),
        ({"memory_bytes": 100 << 20}, PageFault.MEMORY),
    ],
)
async def test_a_reader_is_held_to_its_limits(make: Make, limit: dict[str, float], fault: PageFault) -> None:
    recognition = make(**limit)
    assert await recognition(made_scans.scanned_pdf()[0]) == FailedPage(1, fault)
    await eventually(lambda: not recognition.readers(), "its process is gone")


async def test_a_reader_that_is_killed_costs_a_retry_and_no_page(make: Make) -> None:
    recognition = make()
    reading = asyncio.create_task(recognition.page(made_scans.scanned_pdf()[0]))
    (await recognition.reader_at_work()).send_signal(signal.SIGKILL)
    assert_found(await reading, made_scans.scanned_pdf()[1])


async def test_a_reader_that_is_killed_twice_costs_its_page(make: Make) -> None:
    recognition = make()
    reading = asyncio.create_task(recognition(made_scans.scanned_pdf()[0]))
    first = await recognition.reader_at_work()
    first.send_signal(signal.SIGKILL)
    await eventually(lambda: not first.is_running(), "the first is gone")
    (await recognition.reader_at_work()).send_signal(signal.SIGKILL)
    assert await reading == FailedPage(1, PageFault.CRASHED)


async def test_the_parent_of_the_readers_is_replaced_when_it_dies(make: Make) -> None:
    recognition = make()
    reading = asyncio.create_task(recognition.page(made_scans.scanned_pdf()[0]))
    await recognition.reader_at_work()
    for parent in recognition.parents():
        parent.kill()
    assert_found(await reading, made_scans.scanned_pdf()[1])


async def test_cancelling_ends_the_reader(make: Make) -> None:
    recognition = make()
    reading = asyncio.create_task(recognition(made_scans.crowded(), MediaType.PNG))
    process = await recognition.reader_at_work()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await eventually(lambda: not process.is_running(), "the reader is gone", timeout_s=1)


async def test_every_picture_has_a_process_of_its_own_and_nothing_is_left_behind(make: Make) -> None:
    recognition = make()
    data, boxes = made_scans.scanned_pdf()
    assert_found(await recognition.page(data), boxes)
    here = psutil.Process()
    descriptors, threads = here.num_fds(), here.num_threads()
    seen: set[int] = set()
    for _ in range(3):
        reading = asyncio.create_task(recognition.page(data))
        seen.add((await recognition.reader_at_work()).pid)
        assert_found(await reading, boxes)
        await eventually(lambda: not recognition.readers(), "no process is left")
    assert len(seen) == 3
    await eventually(lambda: here.num_fds() <= descriptors, "no descriptor is left")
    assert here.num_threads() <= threads + 2
    assert len(recognition.parents()) == 1
    await recognition.ocr.stop()
    assert recognition.parents() == []


async def test_the_models_are_unloaded_when_nobody_reads_and_loaded_again(make: Make) -> None:
    recognition = make(idle_s=0.1)
    assert recognition.parents() == []
    data, boxes = made_scans.scanned_pdf()
    for _ in range(2):
        assert_found(await recognition.page(data), boxes)
        await eventually(lambda: not recognition.parents(), "the models are unloaded")


async def test_a_queue_that_is_full_or_slow_says_when_to_come_back(make: Make) -> None:
    recognition = make(processes=1, max_waiting=2)
    crowd = made_scans.crowded()
    first = asyncio.create_task(recognition(crowd, MediaType.PNG))
    await recognition.reader_at_work()
    with pytest.raises(ResourceExhausted) as slow:
        await recognition(crowd, MediaType.PNG, wait_s=0.01)
    assert slow.value.reason == "OCR_BUSY"
    second = asyncio.create_task(recognition.page(made_scans.scanned_pdf()[0]))
    await eventually(lambda: recognition.ocr._slots.waiting == 1, "one waits")
    with pytest.raises(ResourceExhausted) as full:
        await recognition(crowd, MediaType.PNG)
    assert full.value.reason == "OCR_BUSY"
    assert full.value.retry_after_s
    first.cancel()
    assert_found(await second, made_scans.scanned_pdf()[1])


async def test_models_that_cannot_be_loaded_are_unavailable(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.extractor.adapters.ocr_pool._MODULE", "services.extractor.adapters.no_such_module")
    with pytest.raises(Unavailable) as told:
        await make()(made_scans.scanned_pdf()[0])
    assert told.value.reason == "OCR_UNAVAILABLE"


async def test_models_are_loaded_without_a_network() -> None:
    script = """
import socket
def refuse(*_, **__):
    raise AssertionError("the network is asked")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from services.extractor.adapters.ocr_models import Models, _PARAMS
from pathlib import Path
assert all(Path(path).is_file() for name, path in _PARAMS.items() if name.endswith("model_path"))
Models()
"""
    root = Path(__file__).parents[3]
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root
    )
    assert done.returncode == 0, done.stderr
