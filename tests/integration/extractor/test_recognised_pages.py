"""Scans through the whole service: recognised where there is no text or it is asked for, and not started otherwise."""

import sys
from typing import Any

import psutil
import pytest

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2
from tests.integration.extractor import made_pdfs, made_scans
from tests.integration.extractor.conftest import Service, Start

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = [word for _, line in made_scans.TEXT for word in line.split()]


def readers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if any("ocr_worker" in part for part in child.cmdline())]


async def extracted(service: Service, data: bytes, *paths: str, **request: Any) -> page_pb2.Page:
    name = (await service.client.upload(data)).document.name
    found = await service.client.extract(name, *(paths or ("text", "words")), timeout_s=60, **request)
    assert found.failed == []
    (page,) = found.pages
    return page


async def test_a_scan_is_read_and_a_page_with_text_is_not(start: Start) -> None:
    loaded = "cv2" in sys.modules  # by a test before this one
    service = await start(ocr_processes=1)
    before = readers()
    page = await extracted(service, made_pdfs.book(1))
    assert page.text
    assert page_pb2.PAGE_FLAG_OCR not in page.flags
    assert readers() == before, "nothing is started for it"
    assert ("cv2" in sys.modules) == loaded, "the service itself never loads the models"
    page = await extracted(service, made_scans.scanned_pdf()[0])
    assert page.text.split() == WORDS
    assert [word.text for word in page.words] == WORDS
    assert list(page.flags) == [page_pb2.PAGE_FLAG_OCR]
    assert len(readers()) == len(before) + 1


async def test_recognition_is_done_when_asked_for_and_left_out_when_not(start: Start) -> None:
    service = await start(ocr_processes=1)
    scan, _ = made_scans.scanned_pdf()
    page = await extracted(service, scan, ocr=extraction_pb2.OCR_MODE_OFF)
    assert page.text == ""
    assert page_pb2.PAGE_FLAG_NO_TEXT in page.flags
    drawn, _ = made_scans.drawn_page()
    page = await extracted(service, drawn.tobytes(), ocr=extraction_pb2.OCR_MODE_ALWAYS)
    assert page_pb2.PAGE_FLAG_OCR in page.flags
    assert page.text.split() == WORDS


async def test_recognition_can_be_left_out_of_the_service(start: Start) -> None:
    service = await start(ocr_processes=0)
    page = await extracted(service, made_scans.scanned_pdf()[0])
    assert page.text == ""
    assert page_pb2.PAGE_FLAG_NO_TEXT in page.flags
