"""The extractor as the summarizer's source of pages."""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from google.protobuf import duration_pb2, field_mask_pb2

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import document_pb2, extractor_service_pb2_grpc
from pagemesh.extractor.v1 import extractor_service_pb2 as extractor_pb2
from services.runtime.clients import MeshClient
from services.runtime.errors import Unavailable
from services.summarizer.domain.limits import too_large
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.ports import DocumentStart, PageFailed
from services.summarizer.domain.ports_questions import DocumentState
from services.summarizer.domain.values import Box, Page, Word

LOOK_CAP_S = 5.0
READ_CAP_S = 300.0
MARGIN_S = 0.5
"""Kept back of the caller's deadline, so that there is time to say what went wrong."""
DENSE_PAGE_WORDS = 600
"""Building the words of a denser page takes 3 ms and more, and many documents are read at a time: it is done in a
thread."""

_HOLD_TTL = duration_pb2.Duration(seconds=900)
"""Longer than any summary takes; for the case that nobody is left to release it."""
_READ_MASK = field_mask_pb2.FieldMask(paths=["text", "words", "flags"])
"""`flags` has the words that nobody sees marked."""
_TEXT_MASK = field_mask_pb2.FieldMask(paths=["text"])


class ExtractorPages:
    """PageSource and PageReader on the ExtractorService."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = extractor_service_pb2_grpc.ExtractorServiceStub(client.channel)

    async def exists(self, document: str) -> float | None:
        """When it expires; an ephemeral one may at any moment. NotFound where the caller's tenant has none such."""
        request = extractor_pb2.GetDocumentRequest(name=document)
        found = (await self._client.unary(self._stub.GetDocument, request, cap_s=LOOK_CAP_S)).document
        if found.retention == document_pb2.RETENTION_EPHEMERAL:
            return 0.0
        return found.expire_time.ToNanoseconds() / 1e9 if found.HasField("expire_time") else None

    async def hold(self, document: str, hold_id: str) -> None:
        """Keeps the document from expiring. NotFound where there is none."""
        request = extractor_pb2.HoldDocumentRequest(name=document, hold_id=hold_id, ttl=_HOLD_TTL)
        await self._client.unary(self._stub.HoldDocument, request, cap_s=LOOK_CAP_S)

    async def release(self, document: str, hold_id: str, *, processed: bool) -> None:
        """Ends a hold."""
        request = extractor_pb2.ReleaseDocumentRequest(name=document, hold_id=hold_id, processed=processed)
        await self._client.unary(self._stub.ReleaseDocument, request, cap_s=LOOK_CAP_S)

    async def pages(
        self, document: str, within: PageRange = ALL_PAGES
    ) -> AsyncGenerator[DocumentStart | Page | PageFailed, None]:
        """The pages in order, DocumentStart first. Closing it cancels the extraction."""
        request = extractor_pb2.ExtractPagesRequest(
            name=document, first_page=within.first, last_page=within.last, read_mask=_READ_MASK, bursts=True
        )
        async with aclosing(self._read(request)) as items:
            async for item in items:
                yield item

    async def look(self, document: str) -> DocumentState:
        """What the extractor knows of it. NotFound where the caller's tenant has no such document."""
        request = extractor_pb2.GetDocumentRequest(name=document)
        found = (await self._client.unary(self._stub.GetDocument, request, cap_s=LOOK_CAP_S)).document
        return DocumentState(
            page_count=found.page_count if found.HasField("page_count") else None,
            searchable_pages=found.searchable_pages,
            ephemeral=found.retention == document_pb2.RETENTION_EPHEMERAL,
        )

    async def read(
        self, document: str, *, first_page: int = 0, last_page: int = 0, words: bool = True
    ) -> AsyncGenerator[Page | PageFailed, None]:
        """The pages of the range in order, 0 being its open end. Closing it cancels the extraction."""
        request = extractor_pb2.ExtractPagesRequest(
            name=document,
            first_page=first_page,
            last_page=last_page,
            read_mask=_READ_MASK if words else _TEXT_MASK,
            bursts=True,
        )
        async with aclosing(self._read(request)) as items:
            async for item in items:
                if not isinstance(item, DocumentStart):
                    yield item

    async def _read(
        self, request: extractor_pb2.ExtractPagesRequest
    ) -> AsyncGenerator[DocumentStart | Page | PageFailed, None]:
        stream = cast(
            AsyncGenerator[extractor_pb2.ExtractPagesResponse, None],
            self._client.stream(self._stub.ExtractPages, request, cap_s=READ_CAP_S, margin_s=MARGIN_S),
        )
        ended = False
        async with aclosing(stream) as responses:
            async for response in responses:
                for event in response.burst.events or (response,):
                    # An `error` event is left out: the same error follows as the status and is raised by the client.
                    if event.HasField("start"):
                        yield DocumentStart(event.start.last_page - event.start.first_page + 1)
                    elif event.HasField("page"):
                        yield await _bounded(event.page)
                    elif event.HasField("failed_page"):
                        yield PageFailed(event.failed_page.number, event.failed_page.reason)
                    elif event.HasField("end"):
                        ended = True
        if not ended:
            raise Unavailable("EXTRACTION_CUT", "Reading the document broke off. Try again.")


async def _bounded(page: page_pb2.Page) -> Page | PageFailed:
    """The page, unless it is too large: of such a page nothing is built."""
    words = len(page.words)
    failed = too_large(page.number, words=words, chars=len(page.text))
    if failed is not None:
        return failed
    return _page(page) if words < DENSE_PAGE_WORDS else await asyncio.to_thread(_page, page)


def _page(page: page_pb2.Page) -> Page:
    """The page as somebody sees it. Without the words that nobody sees its text is put together anew."""
    if page_pb2.PAGE_FLAG_HIDDEN_TEXT not in page.flags:
        words = tuple(_word(word) for word in page.words)
        return Page(page.number, page.text, words, scanned=_is_scanned(page))
    seen = [word for word in page.words if not word.hidden]
    hidden = len(page.words) - len(seen)
    text = _text(seen) if hidden else page.text
    return Page(page.number, text, tuple(_word(word) for word in seen), hidden_words=hidden)


def _is_scanned(page: page_pb2.Page) -> bool:
    """Whether its text, if it has any, is in its picture."""
    if page_pb2.PAGE_FLAG_BLANK in page.flags:
        return False
    return page_pb2.PAGE_FLAG_OCR in page.flags or page_pb2.PAGE_FLAG_NO_TEXT in page.flags


def _text(words: list[page_pb2.Word]) -> str:
    lines = itertools.groupby(words, key=lambda word: (word.block, word.line))
    return "\n".join(" ".join(word.text for word in line) for _, line in lines)


def _word(word: page_pb2.Word) -> Word:
    box = word.box
    return Word(word.text, Box(box.x0, box.y0, box.x1, box.y1), word.block, word.line)
