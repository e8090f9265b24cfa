"""The summarizer as the extractor sees it: it erases what it made of documents, or is down."""

from collections import Counter
from dataclasses import dataclass, field

from pagemesh.summarizer.v1 import summarizer_service_pb2 as summarizer_pb2
from pagemesh.summarizer.v1.summarizer_service_pb2_grpc import SummarizerServiceServicer
from services.runtime.call import current_identity
from services.runtime.errors import Unavailable

SUMMARIZER = "pagemesh.summarizer.v1.SummarizerService"


@dataclass
class ScriptedSummarizer(SummarizerServiceServicer):
    """Speaks the contract; what it made of which document a test says."""

    made: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Results by tenant and document."""
    down: bool = False
    asked: int = 0

    async def PurgeDocument(
        self, request: summarizer_pb2.PurgeDocumentRequest, context: object
    ) -> summarizer_pb2.PurgeDocumentResponse:
        self.asked += 1
        if self.down:
            raise Unavailable("DATABASE_UNAVAILABLE", "The database does not answer.")
        count = self.made.pop((current_identity().tenant, request.document), 0)
        return summarizer_pb2.PurgeDocumentResponse(results_deleted=count)
