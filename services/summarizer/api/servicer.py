"""SummarizerService: requests in, use case, answers out."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from google.rpc import status_pb2
from prometheus_client import Gauge, Histogram

from pagemesh.summarizer.v1 import answer_pb2, embedding_pb2, fields_pb2, summarizer_service_pb2_grpc
from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from services.runtime.call import current_identity
from services.runtime.stream_errors import with_error_event
from services.summarizer.api.caller import current_caller, current_deadline
from services.summarizer.api.embeddings import Embeddings
from services.summarizer.api.estimate_mapping import to_purse
from services.summarizer.api.estimates import Estimates
from services.summarizer.api.fields_mapping import from_extraction, to_range, to_wanted
from services.summarizer.api.mapping import from_event, from_summary, to_options
from services.summarizer.api.personal_mapping import to_kinds
from services.summarizer.api.questions import Questions
from services.summarizer.domain.events import Finished
from services.summarizer.domain.extract_fields import ExtractFields
from services.summarizer.domain.purge import PurgeDocument
from services.summarizer.domain.summarize import StreamSummarize, Summarize
from services.summarizer.domain.values import Summary

_ACTIVE = Gauge("ai_requests_active", "Requests for answers that are being worked on.")
_GROUNDED = Histogram(
    "pagemesh_summarizer_grounded_share",
    "Share of the sentences of a summary that are grounded.",
    buckets=(0, 0.25, 0.5, 0.75, 0.9, 0.99, 1),
)

_FIELDS_GROUNDED = Histogram(
    "pagemesh_summarizer_fields_grounded_share",
    "Share of the fields of an extraction that are grounded.",
    buckets=(0, 0.25, 0.5, 0.75, 0.9, 0.99, 1),
)


class SummarizerServicer(summarizer_service_pb2_grpc.SummarizerServiceServicer):
    """Translates; decides nothing."""

    def __init__(
        self,
        *,
        summarize: Summarize,
        stream_summarize: StreamSummarize,
        extract_fields: ExtractFields,
        estimates: Estimates,
        purge: PurgeDocument,
        questions: Questions,
        embedding: Embeddings,
    ) -> None:
        self._questions = questions
        self._embedding = embedding
        self._summarize = summarize
        self._extract_fields = extract_fields
        self._estimates = estimates
        self._purge = purge
        self._stream_summarize = stream_summarize

    async def Summarize(
        self, request: service_pb2.SummarizeRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> service_pb2.SummarizeResponse:
        """A summary."""
        with _ACTIVE.track_inprogress():
            summary = await self._summarize(
                current_caller(),
                request.document,
                to_options(request.options),
                fallbacks=request.options.fallback_models,
                purse=to_purse(request),
                deadline=current_deadline(),
            )
        _observe(summary)
        return service_pb2.SummarizeResponse(summary=from_summary(summary))

    async def StreamSummarize(
        self, request: service_pb2.StreamSummarizeRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[service_pb2.StreamSummarizeResponse]:
        """A summary as it comes into being."""
        # Closed here, so that a caller who hangs up ends the work at once; it closes the stream that it passes on.
        async with aclosing(with_error_event(self._events(request), make=_error_event)) as responses:
            async for response in responses:
                yield response

    async def Estimate(
        self, request: service_pb2.EstimateRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> service_pb2.EstimateResponse:
        """What a request would cost."""
        return await self._estimates.one(request)

    async def Ask(
        self, request: answer_pb2.AskRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> answer_pb2.AskResponse:
        """An answer to a question."""
        return await self._questions.ask(request)

    async def StreamAsk(
        self, request: answer_pb2.StreamAskRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[answer_pb2.StreamAskResponse]:
        """An answer as it comes into being."""
        async with aclosing(self._questions.stream(request)) as responses:
            async for response in responses:
                yield response

    async def ExtractFields(
        self, request: fields_pb2.ExtractFieldsRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> fields_pb2.ExtractFieldsResponse:
        """What a schema describes."""
        with _ACTIVE.track_inprogress():
            extraction = await self._extract_fields(
                current_caller(),
                request.document,
                to_wanted(request),
                model=request.options.model,
                ocr_model=request.options.ocr_model,
                fallbacks=request.options.fallback_models,
                anonymise=to_kinds(request.options.anonymise),
                within=to_range(request),
                purse=to_purse(request),
                deadline=current_deadline(),
            )
        _FIELDS_GROUNDED.observe(extraction.grounded_share)
        return fields_pb2.ExtractFieldsResponse(extraction=from_extraction(extraction))

    async def EmbedDocument(
        self, request: embedding_pb2.EmbedDocumentRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> embedding_pb2.EmbedDocumentResponse:
        """Vectors of a document's pages."""
        return await self._embedding.document(request)

    async def EmbedQuery(
        self, request: embedding_pb2.EmbedQueryRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> embedding_pb2.EmbedQueryResponse:
        """The vector of a query."""
        return await self._embedding.query(request)

    async def PurgeDocument(
        self, request: service_pb2.PurgeDocumentRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> service_pb2.PurgeDocumentResponse:
        """Erases what was made of a document."""
        count = await self._purge(current_identity().tenant, request.document)
        return service_pb2.PurgeDocumentResponse(results_deleted=count)

    async def _events(
        self, request: service_pb2.StreamSummarizeRequest
    ) -> AsyncGenerator[service_pb2.StreamSummarizeResponse, None]:
        stream = self._stream_summarize(
            current_caller(),
            request.document,
            to_options(request.options),
            fallbacks=request.options.fallback_models,
            purse=to_purse(request),
            deadline=current_deadline(),
        )
        with _ACTIVE.track_inprogress():
            async with aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        _observe(event.summary)
                    yield from_event(event)


def _error_event(status: status_pb2.Status) -> service_pb2.StreamSummarizeResponse:
    return service_pb2.StreamSummarizeResponse(error=status)


def _observe(summary: Summary) -> None:
    if not summary.cached:
        _GROUNDED.observe(summary.grounded_share)
