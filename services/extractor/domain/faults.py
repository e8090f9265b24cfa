"""What is told of documents that cannot be read."""

from services.extractor.domain.pages import DocumentFault
from services.runtime.errors import FailedPrecondition

_EXPLANATION = {
    DocumentFault.CORRUPT: "The file is damaged beyond repair, or is not what its first bytes say.",
    DocumentFault.ENCRYPTED: "The file asks for a password: give the right one, or upload the file without.",
    DocumentFault.NO_PAGES: "The file has no pages.",
    DocumentFault.TIMEOUT: "Reading the file takes too long.",
    DocumentFault.MEMORY: "Reading the file takes too much memory.",
}


def document_fault(fault: DocumentFault) -> FailedPrecondition:
    """The error for a document that cannot be read."""
    return FailedPrecondition(fault.value, _EXPLANATION[fault])
