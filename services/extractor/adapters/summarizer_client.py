"""The summarizer, which erases what it made of a document."""

from uuid import uuid4

from pagemesh.summarizer.v1 import summarizer_service_pb2 as summarizer_pb2
from pagemesh.summarizer.v1.summarizer_service_pb2_grpc import SummarizerServiceStub
from services.extractor.domain.keeping import Results
from services.runtime.call import Identity, acting_as, current_call
from services.runtime.clients import MeshClient

CAP_S = 5.0
_ACTOR = "services/extractor"


class SummarizerResults(Results):
    """Implements the port `Results`."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = SummarizerServiceStub(client.channel)

    async def purge(self, tenant: str, document: str) -> int:
        """See the port."""
        request = summarizer_pb2.PurgeDocumentRequest(document=document)
        # For the document's tenant, also where the lifecycle worker asks and nobody called.
        with acting_as(Identity(tenant, _ACTOR, "", frozenset()), request_id=_request_id()):
            response = await self._client.unary(self._stub.PurgeDocument, request, cap_s=CAP_S)
        return int(response.results_deleted)


def _request_id() -> str:
    try:
        return current_call().request_id
    except LookupError:
        return str(uuid4())
