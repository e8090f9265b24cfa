"""Estimate: requests in, use case, answers out."""

from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from services.summarizer.api.caller import current_caller
from services.summarizer.api.estimate_mapping import from_estimate
from services.summarizer.api.job_mapping import to_ask_work, to_fields_work, to_summarize_work
from services.summarizer.domain.estimates import Estimator
from services.summarizer.domain.jobs import Work


class Estimates:
    """The part of the servicer that tells prices. Translates; decides nothing."""

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator

    async def one(self, request: service_pb2.EstimateRequest) -> service_pb2.EstimateResponse:
        """What a request would cost."""
        work, at = _to_work(request)
        documents = (request.document, *request.more_documents)
        found = await self._estimator(current_caller(), documents, work, at=at)
        return service_pb2.EstimateResponse(estimate=from_estimate(found))


def _to_work(request: service_pb2.EstimateRequest) -> tuple[Work, str]:
    """What would be done, and where the request says so."""
    match request.WhichOneof("work"):
        case "fields":
            return to_fields_work(request.fields, at="fields."), "fields."
        case "question":
            return to_ask_work(request.question), "question."
    return to_summarize_work(request.summary), "summary."
