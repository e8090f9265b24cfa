"""Between the contract's messages about pictures and the domain's values."""

from collections.abc import Iterator

from google.api.httpbody_pb2 import HttpBody

from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from services.extractor.domain.pages import Picture, PictureFormat
from services.extractor.domain.pictures import Drawing, ImageOf

PIECE_BYTES = 256 * 1024
_CONTENT_TYPE = {PictureFormat.JPEG: "image/jpeg", PictureFormat.PNG: "image/png"}


def drawing(tenant: str, request: pb.RenderPageRequest) -> Drawing:
    """The page that is to be drawn; no format means JPEG."""
    png = request.format == pb.RenderPageRequest.FORMAT_PNG
    return Drawing(
        tenant,
        request.name,
        request.page,
        request.dpi,
        PictureFormat.PNG if png else PictureFormat.JPEG,
        request.jpeg_quality,
        request.password,
    )


def image_of(tenant: str, request: pb.ExtractImageRequest) -> ImageOf:
    """The image that is asked for."""
    return ImageOf(tenant, request.name, request.page, request.index, request.password)


def pieces(picture: Picture) -> Iterator[HttpBody]:
    """The picture in pieces; the first one carries the content type."""
    for begin in range(0, len(picture.content), PIECE_BYTES):
        content_type = "" if begin else _CONTENT_TYPE[picture.format]
        yield HttpBody(content_type=content_type, data=picture.content[begin : begin + PIECE_BYTES])
