"""pagemesh.extractor.v1.ExtractorService."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceServicer
from services.extractor.api import mapping
from services.extractor.domain.extract import ExtractPages
from services.extractor.domain.library import Library
from services.extractor.domain.upload import UploadDocument
from services.runtime.call import current_call, current_identity
from services.runtime.stream_errors import with_error_event

Context = grpc.aio.ServicerContext[Any, Any]


class ExtractorServicer(ExtractorServiceServicer):
    """Translates between the contract and the use cases."""

    def __init__(self, *, upload: UploadDocument, library: Library, extract: ExtractPages) -> None:
        self._upload = upload
        self._library = library
        self._extract = extract

    async def UploadDocument(
        self, request_iterator: AsyncIterator[pb.UploadDocumentRequest], context: Context
    ) -> pb.UploadDocumentResponse:
        """Takes a file in."""
        first = await anext(request_iterator, pb.UploadDocumentRequest())
        tenant = current_identity().tenant
        uploaded = await self._upload(tenant, first.display_name, _pieces(first, request_iterator))
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

    async def DeleteDocument(self, request: pb.DeleteDocumentRequest, context: Context) -> pb.DeleteDocumentResponse:
        """Erases a document."""
        receipt = await self._library.delete(current_identity().tenant, request.name)
        return pb.DeleteDocumentResponse(receipt=mapping.receipt(receipt))

    async def ExtractPages(
        self, request: pb.ExtractPagesRequest, context: Context
    ) -> AsyncIterator[pb.ExtractPagesResponse]:
        """Streams pages."""
        told = with_error_event(self._events(request), make=lambda status: pb.ExtractPagesResponse(error=status))
        # Closed here, and by it what it reads from, so that a cancelled call stops its parser at once.
        async with aclosing(told):
            async for response in told:
                yield response

    async def _events(self, request: pb.ExtractPagesRequest) -> AsyncGenerator[pb.ExtractPagesResponse, None]:
        extraction = mapping.extraction(current_identity().tenant, request)
        async with aclosing(self._extract(extraction, remaining_s=current_call().remaining_s)) as events:
            async for event in events:
                yield mapping.event(event)


async def _pieces(
    first: pb.UploadDocumentRequest, rest: AsyncIterator[pb.UploadDocumentRequest]
) -> AsyncIterator[bytes]:
    yield first.content.data
    async for request in rest:
        yield request.content.data
