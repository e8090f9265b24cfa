"""Pages as dense as they may be, and denser, come in over mTLS: nobody else is held up by them."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as extractor_pb2
from pagemesh_cli.stack.certificates import CertificateAuthority
from services.runtime.clients import MeshClient
from services.runtime.errors import FailedPrecondition
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.extractor_client import ExtractorPages
from services.summarizer.domain.chunking import ChunkBuilder
from services.summarizer.domain.limits import MAX_PAGE_WORDS
from services.summarizer.domain.reading import Reading, read
from services.summarizer.domain.values import Box, Word
from tests.integration.summarizer.peers import ScriptedExtractor, extractor_registration, serving, settings
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT

PAGES = 6
MAX_SHARE = 0.7
"""Longest turn of the loop, as a share of the time that building the words of one page takes. Both are times of the
loop's own thread, which other load of the machine does not change."""


class DenseExtractor(ScriptedExtractor):
    """Sends the same page again and again, made before anybody asks."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.page = page_pb2.Page(number=1, width_pt=600, height_pt=800, text="wordy\n" * words)
        box = page_pb2.BoundingBox(x0=1, y0=2, x1=3, y1=4)
        self.page.words.extend(page_pb2.Word(text="wordy", box=box, line=line) for line in range(words))

    async def ExtractPages(
        self, request: extractor_pb2.ExtractPagesRequest, context: Any
    ) -> AsyncIterator[extractor_pb2.ExtractPagesResponse]:
        start = extraction_pb2.ExtractionStart(page_count=PAGES, first_page=1, last_page=PAGES)
        yield extractor_pb2.ExtractPagesResponse(start=start)
        for number in range(1, PAGES + 1):
            self.page.number = number
            yield extractor_pb2.ExtractPagesResponse(page=self.page)
        yield extractor_pb2.ExtractPagesResponse(end=extraction_pb2.ExtractionEnd(pages_sent=PAGES))


class Turns:
    """How long the loop's thread worked between two turns of a task that asks for nothing but its turn."""

    def __init__(self) -> None:
        self.longest_cpu_s = 0.0

    async def watch(self) -> None:
        last_s = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now_s = time.thread_time()
            self.longest_cpu_s = max(self.longest_cpu_s, now_s - last_s)
            last_s = now_s


@pytest.fixture(autouse=True)
def no_foreign_garbage() -> Iterator[None]:
    """What other tests left is not collected in a turn that is measured."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def read_watched(words: int, pki: CertificateAuthority) -> tuple[Reading, Turns]:
    registration = extractor_registration(DenseExtractor(words))  # type: ignore[abstract]
    turns = Turns()
    async with serving("extractor", pki.tls_dir("extractor"), registration) as target:
        client = MeshClient(peer="extractor", target=target, settings=settings(pki.tls_dir("summarizer")))
        builder = ChunkBuilder(max_tokens=16_000, count=lambda text: -(-len(text) // 4))
        watching = asyncio.create_task(turns.watch())
        try:
            with act_as(ALICE):
                return await read(ExtractorPages(client), DOCUMENT, builder, lambda _, __: None), turns
        finally:
            watching.cancel()
            await client.close()


def building_cpu_s() -> float:
    words = DenseExtractor(MAX_PAGE_WORDS).page.words  # type: ignore[abstract]
    begun_s = time.thread_time()
    tuple(Word(w.text, Box(w.box.x0, w.box.y0, w.box.x1, w.box.y1), w.block, w.line) for w in words)
    return time.thread_time() - begun_s


async def test_the_densest_pages_are_read_and_the_loop_goes_on(mesh_pki: CertificateAuthority) -> None:
    reading, turns = await read_watched(MAX_PAGE_WORDS, mesh_pki)
    assert (reading.pages_read, reading.failed_pages) == (PAGES, ())
    assert turns.longest_cpu_s < MAX_SHARE * min(building_cpu_s() for _ in range(3))


async def test_of_denser_pages_nothing_is_built(mesh_pki: CertificateAuthority) -> None:
    with pytest.raises(FailedPrecondition, match="PAGE_TOO_LARGE") as refused:
        await read_watched(MAX_PAGE_WORDS + 1, mesh_pki)
    assert refused.value.reason == "DOCUMENT_UNREADABLE"
