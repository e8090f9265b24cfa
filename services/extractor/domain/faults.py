"""What is told of documents that cannot be read."""

from services.extractor.domain.pages import DocumentFault
from services.runtime.errors import FailedPrecondition, FieldViolation

_EXPLANATION = {
    DocumentFault.CORRUPT: "The file is damaged beyond repair, or is not what its first bytes say.",
    DocumentFault.ENCRYPTED: "The file asks for a password: give it as `password` where its pages are read or drawn, "
    "and store it without one for all else.",
    DocumentFault.WRONG_PASSWORD: "This is not the password of the file.",
    DocumentFault.TOO_MANY_PIXELS: "The image has too many pixels. Make it smaller.",
    DocumentFault.NO_PAGES: "The file has no pages. Export it anew.",
    DocumentFault.TIMEOUT: "Reading the file takes too long.",
    DocumentFault.MEMORY: "Reading the file takes too much memory.",
}
_ABOUT_PASSWORD = (DocumentFault.ENCRYPTED, DocumentFault.WRONG_PASSWORD)


def out_of_range(page_count: int) -> str:
    """What is said to those who ask for a page behind the last one."""
    pages = "1 page. Ask for that one." if page_count == 1 else f"{page_count} pages. Ask for one of them."
    return f"The document has {pages}"


def document_fault(fault: DocumentFault) -> FailedPrecondition:
    """The error for a document that cannot be read."""
    message = _EXPLANATION[fault]
    fields = [FieldViolation("password", message)] if fault in _ABOUT_PASSWORD else []
    return FailedPrecondition(fault.value, message, fields=fields)
