"""The extractor as the summarizer's source of pictures of pages."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from pagemesh.extractor.v1 import extractor_service_pb2 as extractor_pb2
from pagemesh.extractor.v1 import extractor_service_pb2_grpc
from services.runtime.clients import MeshClient
from services.runtime.errors import FailedPrecondition
from services.summarizer.domain.pictures import Picture

CAP_S = 60.0
MARGIN_S = 0.5
DPI = 200
"""What models for OCR are trained on; small print of 6 points is 16 pixels high then."""
QUALITY = 85
MAX_BYTES = 20 * 2**20
"""Larger ones are refused: as base64 it is 27 MB of a request that may have 50."""


class ExtractorPictures:
    """PagePictures on the ExtractorService, which keeps drawn pages for a day."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = extractor_service_pb2_grpc.ExtractorServiceStub(client.channel)

    async def draw(self, document: str, page: int) -> Picture:
        """The page as a JPEG. FailedPrecondition PAGE_PICTURE_TOO_LARGE, and what RenderPage answers."""
        request = extractor_pb2.RenderPageRequest(
            name=document,
            page=page,
            dpi=DPI,
            format=extractor_pb2.RenderPageRequest.FORMAT_JPEG,
            jpeg_quality=QUALITY,
        )
        stream = cast(
            AsyncGenerator[extractor_pb2.RenderPageResponse, None],
            self._client.stream(self._stub.RenderPage, request, cap_s=CAP_S, margin_s=MARGIN_S),
        )
        media_type, content = "", bytearray()
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                media_type = media_type or piece.content.content_type
                content += piece.content.data
                if len(content) > MAX_BYTES:
                    raise FailedPrecondition(
                        "PAGE_PICTURE_TOO_LARGE", f"The picture of page {page} has more than {MAX_BYTES:,} bytes."
                    )
        return Picture(media_type, bytes(content))
