"""Small real servicers of real contracts: what they do is asked for in the request."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from google.protobuf import duration_pb2

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2, extractor_service_pb2, extractor_service_pb2_grpc
from pagemesh.ledger.v1 import hold_pb2, ledger_service_pb2, ledger_service_pb2_grpc
from services.runtime import errors
from services.runtime.call import Identity, current_call, current_identity
from services.runtime.stream_errors import with_error_event

_LedgerBase: Any = ledger_service_pb2_grpc.LedgerServiceServicer
_ExtractorBase: Any = extractor_service_pb2_grpc.ExtractorServiceServicer
HOLD = "6f8fcf7a-7a5e-4b7c-9f6b-3a6d2f4f5a11"
ACME = Identity("acme", "apiKeys/a", "p1", frozenset({"documents.read", "documents.write"}))
DOCUMENT = "documents/" + "0" * 32


class Ledger(_LedgerBase):  # type: ignore[misc]  # answers a part of the contract
    """Does what the model's name says."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()

    async def Reserve(
        self, request: ledger_service_pb2.ReserveRequest, context: Any
    ) -> ledger_service_pb2.ReserveResponse:
        self.seen.append(current_call())
        self.entered.set()
        if request.model == "x/bug":
            raise ValueError("planted-secret")
        if request.model == "x/budget":
            raise errors.ResourceExhausted(
                "BUDGET_EXCEEDED", "no room", quota=errors.QuotaViolation("tenants/acme", "hard"), retry_after_s=3
            )
        if request.model == "x/hang":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return ledger_service_pb2.ReserveResponse(
            hold=hold_pb2.Hold(hold_id=request.hold_id, model=current_identity().tenant)
        )


class Extractor(_ExtractorBase):  # type: ignore[misc]  # answers a part of the contract
    """Counts uploads; its pages break off after the second."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.received: list[int] = []

    async def UploadDocument(self, request_iterator: Any, context: Any) -> extractor_service_pb2.UploadDocumentResponse:
        async for message in request_iterator:
            self.received.append(len(message.content.data))
        return extractor_service_pb2.UploadDocumentResponse(created=True)

    async def ExtractPages(
        self, request: extractor_service_pb2.ExtractPagesRequest, context: Any
    ) -> AsyncGenerator[extractor_service_pb2.ExtractPagesResponse, None]:
        make = extractor_service_pb2.ExtractPagesResponse
        async for response in with_error_event(self._pages(request.first_page), make=lambda status: make(error=status)):
            yield response

    async def _pages(self, first: int) -> AsyncGenerator[extractor_service_pb2.ExtractPagesResponse, None]:
        try:
            if first == 9:
                raise errors.NotFound("DOCUMENT_NOT_FOUND", "no such document")
            yield extractor_service_pb2.ExtractPagesResponse(
                start=extraction_pb2.ExtractionStart(page_count=9, first_page=1, last_page=9)
            )
            if first == 8:
                await asyncio.Event().wait()
            for number in range(1, 10_000 if first == 7 else 3):
                yield extractor_service_pb2.ExtractPagesResponse(page=page_pb2.Page(number=number))
                await asyncio.sleep(0)
            raise errors.Unavailable("STORE_UNAVAILABLE", "the store is down")
        finally:
            self.closed.set()


def ledger(servicer: Ledger) -> tuple[Any, object, str]:
    return (
        ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server,
        servicer,
        "pagemesh.ledger.v1.LedgerService",
    )


def extractor(servicer: Extractor) -> tuple[Any, object, str]:
    return (
        extractor_service_pb2_grpc.add_ExtractorServiceServicer_to_server,
        servicer,
        "pagemesh.extractor.v1.ExtractorService",
    )


def reserve(model: str = "x/ok") -> ledger_service_pb2.ReserveRequest:
    return ledger_service_pb2.ReserveRequest(hold_id=HOLD, model=model, ttl=duration_pb2.Duration(seconds=5))
