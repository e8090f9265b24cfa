"""Between the contract's messages and the domain's values."""

from google.protobuf.timestamp_pb2 import Timestamp

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import document_pb2, extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from services.extractor.domain.documents import DeletionReceipt, Document
from services.extractor.domain.extract import Extraction
from services.extractor.domain.pages import (
    DocumentFlag,
    ExtractionEnd,
    ExtractionEvent,
    ExtractionStart,
    Page,
    PageFault,
    Part,
)

_PART = {"text": Part.TEXT, "blocks": Part.BLOCKS, "words": Part.WORDS}
_DEFAULT_PARTS = Part.TEXT | Part.BLOCKS
_FLAG = {
    DocumentFlag.REPAIRED: extraction_pb2.DOCUMENT_FLAG_REPAIRED,
    DocumentFlag.ENCRYPTED: extraction_pb2.DOCUMENT_FLAG_ENCRYPTED,
}
_FAILED_PAGE = {
    PageFault.CORRUPT: "The page is damaged.",
    PageFault.TIMEOUT: "Reading the page takes too long.",
    PageFault.MEMORY: "Reading the page takes too much memory.",
    PageFault.CRASHED: "Reading the page ends its parser.",
}


def document(value: Document) -> document_pb2.Document:
    """A document."""
    message = document_pb2.Document(
        name=value.name,
        display_name=value.display_name,
        media_type=value.media_type,
        size_bytes=value.size_bytes,
        sha256=value.sha256,
        page_count=value.page_count,
    )
    message.create_time.FromDatetime(value.create_time)
    return message


def receipt(value: DeletionReceipt) -> document_pb2.DeletionReceipt:
    """A deletion's receipt."""
    delete_time = Timestamp()
    delete_time.FromDatetime(value.delete_time)
    return document_pb2.DeletionReceipt(
        document=value.document.name,
        sha256=value.document.sha256,
        size_bytes=value.document.size_bytes,
        objects_deleted=value.objects_deleted,
        delete_time=delete_time,
    )


def extraction(tenant: str, request: pb.ExtractPagesRequest) -> Extraction:
    """What is asked for; an empty mask means text and blocks."""
    parts = Part(0)
    for path in request.read_mask.paths:
        parts |= _PART[path]
    return Extraction(tenant, request.name, request.first_page, request.last_page, parts or _DEFAULT_PARTS)


def event(value: ExtractionEvent) -> pb.ExtractPagesResponse:
    """One event of an extraction."""
    if isinstance(value, Page):
        return pb.ExtractPagesResponse(page=page_pb2.Page.FromString(value.content))
    if isinstance(value, ExtractionStart):
        start = extraction_pb2.ExtractionStart(
            page_count=value.page_count,
            first_page=value.first_page,
            last_page=value.last_page,
            flags=[number for flag, number in _FLAG.items() if flag in value.flags],
        )
        return pb.ExtractPagesResponse(start=start)
    if isinstance(value, ExtractionEnd):
        end = extraction_pb2.ExtractionEnd(pages_sent=value.pages_sent, pages_failed=value.pages_failed)
        return pb.ExtractPagesResponse(end=end)
    failed = extraction_pb2.FailedPage(number=value.number, reason=value.fault, message=_FAILED_PAGE[value.fault])
    return pb.ExtractPagesResponse(failed_page=failed)
