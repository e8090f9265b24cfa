"""pagemesh.extractor.v1.ExtractorService."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import grpc

from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh.extractor.v1 import vectors_pb2
from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceServicer
from services.extractor.api import mapping, pictures, search_mapping
from services.extractor.domain.documents import document_id
from services.extractor.domain.erasure import Eraser
from services.extractor.domain.hybrid import VectorIndex
from services.extractor.domain.library import Library
from services.extractor.domain.pages import ExtractionEvent, Part
from services.extractor.domain.pictures import Pictures
from services.extractor.domain.search import SearchPages
from services.extractor.domain.upload import UploadDocument
from services.extractor.domain.uses import ProcessPages, Uses
from services.runtime.access import of_method
from services.runtime.call import current_call, current_identity
from services.runtime.stream_errors import with_error_event

_PLAN_BYTES_HEADER = "x-pagemesh-max-upload-bytes"
"""What the ledger told the edge of the tenant's plan; the edge drops what a client sends of that name."""
_HOLDERS = of_method("/pagemesh.extractor.v1.ExtractorService/HoldDocument").internal_callers
Context = grpc.aio.ServicerContext[Any, Any]


class ExtractorServicer(ExtractorServiceServicer):
    """Translates between the contract and the use cases."""

    def __init__(
        self,
        *,
        upload: UploadDocument,
        library: Library,
        eraser: Eraser,
        extract: ProcessPages,
        uses: Uses,
        pictures: Pictures,
        search: SearchPages,
        vectors: VectorIndex,
    ) -> None:
        self._upload = upload
        self._library = library
        self._eraser = eraser
        self._extract = extract
        self._uses = uses
        self._pictures = pictures
        self._search = search
        self._vectors = vectors

    async def UploadDocument(
        self, request_iterator: AsyncIterator[pb.UploadDocumentRequest], context: Context
    ) -> pb.UploadDocumentResponse:
        """Takes a file in."""
        first = await anext(request_iterator, pb.UploadDocumentRequest())
        tenant = current_identity().tenant
        uploaded = await self._upload(
            tenant,
            first.display_name,
            _pieces(first, request_iterator),
            retention=mapping.retention(first.retention),
            expire_time=mapping.time(first),
            plan_bytes=_plan_bytes(context),
        )
        return pb.UploadDocumentResponse(document=mapping.document(uploaded.document), created=uploaded.created)

    async def GetDocument(self, request: pb.GetDocumentRequest, context: Context) -> pb.GetDocumentResponse:
        """Describes one document."""
        found = await self._library.get(current_identity().tenant, request.name)
        return pb.GetDocumentResponse(document=mapping.document(found))

    async def ListDocuments(self, request: pb.ListDocumentsRequest, context: Context) -> pb.ListDocumentsResponse:
        """Lists documents, newest first."""
        part = await self._library.list(
            current_identity().tenant, page_size=request.page_size, page_token=request.page_token
        )
        return pb.ListDocumentsResponse(
            documents=[mapping.document(found) for found in part.documents], next_page_token=part.next_page_token
        )

    async def UpdateDocument(self, request: pb.UpdateDocumentRequest, context: Context) -> pb.UpdateDocumentResponse:
        """Changes how long a document is kept."""
        changed = await self._library.update(current_identity().tenant, request.document.name, mapping.change(request))
        return pb.UpdateDocumentResponse(document=mapping.document(changed))

    async def DeleteDocument(self, request: pb.DeleteDocumentRequest, context: Context) -> pb.DeleteDocumentResponse:
        """Erases a document."""
        identity = current_identity()
        receipt = await self._eraser.delete(identity.tenant, request.name, actor=identity.actor)
        return pb.DeleteDocumentResponse(receipt=mapping.receipt(receipt))

    async def ListDeletionReceipts(
        self, request: pb.ListDeletionReceiptsRequest, context: Context
    ) -> pb.ListDeletionReceiptsResponse:
        """Lists receipts, newest first."""
        part = await self._library.receipts(
            current_identity().tenant, page_size=request.page_size, page_token=request.page_token
        )
        return pb.ListDeletionReceiptsResponse(
            receipts=[mapping.receipt(found) for found in part.receipts], next_page_token=part.next_page_token
        )

    async def HoldDocument(self, request: pb.HoldDocumentRequest, context: Context) -> pb.HoldDocumentResponse:
        """Holds a document for another service."""
        await self._uses.hold(current_identity().tenant, request.name, request.hold_id, request.ttl.ToTimedelta())
        return pb.HoldDocumentResponse()

    async def ReleaseDocument(self, request: pb.ReleaseDocumentRequest, context: Context) -> pb.ReleaseDocumentResponse:
        """Ends such a hold."""
        await self._uses.release(current_identity().tenant, request.name, request.hold_id, processed=request.processed)
        return pb.ReleaseDocumentResponse()

    def ExtractPages(self, request: pb.ExtractPagesRequest, context: Context) -> AsyncIterator[Any]:
        """Streams pages, those that are on the wire already as they are there. The runtime closes the stream, and it
        what it reads from, so that a cancelled call stops its parser at once."""
        return with_error_event(self._messages(request), make=lambda status: pb.ExtractPagesResponse(error=status))

    async def SearchPages(self, request: pb.SearchPagesRequest, context: Context) -> pb.SearchPagesResponse:
        """Searches pages, best first."""
        search = search_mapping.search(current_identity().tenant, request)
        return search_mapping.results(await self._search(search, remaining_s=current_call().remaining_s))

    async def StorePageVectors(
        self, request: vectors_pb2.StorePageVectorsRequest, context: Context
    ) -> vectors_pb2.StorePageVectorsResponse:
        """Keeps vectors of pages."""
        passages = search_mapping.passages(request)
        await self._vectors.store(current_identity().tenant, document_id(request.document), passages)
        return vectors_pb2.StorePageVectorsResponse()

    async def _messages(self, request: pb.ExtractPagesRequest) -> AsyncGenerator[pb.ExtractPagesResponse | bytes, None]:
        extraction = mapping.extraction(current_identity().tenant, request)
        say: Callable[[Sequence[ExtractionEvent], Part], Iterator[pb.ExtractPagesResponse | bytes]]
        say = mapping.bursts if request.bursts else mapping.messages
        call = current_call()
        # Services say themselves when they are through with a document: they hold it.
        pages = self._extract(extraction, remaining_s=call.remaining_s, processes=call.peer not in _HOLDERS)
        async with aclosing(pages) as bursts:
            async for events in bursts:
                for message in say(events, extraction.parts):
                    yield message

    async def RenderPage(self, request: pb.RenderPageRequest, context: Context) -> AsyncIterator[pb.RenderPageResponse]:
        """Draws a page."""
        drawing = pictures.drawing(current_identity().tenant, request)
        async with self._pictures.page(drawing, remaining_s=current_call().remaining_s) as picture:
            for piece in pictures.pieces(picture):
                yield pb.RenderPageResponse(content=piece)

    async def ExtractImage(
        self, request: pb.ExtractImageRequest, context: Context
    ) -> AsyncIterator[pb.ExtractImageResponse]:
        """Takes an image out of a document."""
        image = pictures.image_of(current_identity().tenant, request)
        async with self._pictures.image(image, remaining_s=current_call().remaining_s) as picture:
            for piece in pictures.pieces(picture):
                yield pb.ExtractImageResponse(content=piece)


async def _pieces(
    first: pb.UploadDocumentRequest, rest: AsyncIterator[pb.UploadDocumentRequest]
) -> AsyncIterator[bytes]:
    yield first.content.data
    async for request in rest:
        yield request.content.data


def _plan_bytes(context: Context) -> int | None:
    told = dict(context.invocation_metadata() or ()).get(_PLAN_BYTES_HEADER)
    return None if told is None else int(told)
