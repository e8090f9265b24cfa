"""pagemesh.ledger.v1.LedgerService."""

from typing import Any
from uuid import UUID

import grpc
from prometheus_client import Counter

from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceServicer
from services.ledger.api import mapping
from services.ledger.domain.books import Books
from services.ledger.domain.values import Tokens
from services.runtime.errors import PagemeshError

Context = grpc.aio.ServicerContext[Any, Any]

_RESERVES = Counter("pagemesh_ledger_reserves", "Reservations, by `held` or the reason of the refusal.", ["outcome"])


class LedgerServicer(LedgerServiceServicer):
    """Translates between the contract and the books."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def Reserve(self, request: pb.ReserveRequest, context: Context) -> pb.ReserveResponse:
        """Sets money aside."""
        try:
            hold = await self._books.reserve(
                mapping.caller(),
                UUID(request.hold_id),
                request.model,
                Tokens(request.max_input_tokens, request.max_output_tokens),
                mapping.ttl_of(request.ttl),
                job=request.job,
            )
        except PagemeshError as exc:
            _RESERVES.labels(exc.reason.lower()).inc()
            raise
        _RESERVES.labels("held").inc()
        return pb.ReserveResponse(hold=mapping.hold_message(hold))

    async def Settle(self, request: pb.SettleRequest, context: Context) -> pb.SettleResponse:
        """Records a call and closes its hold."""
        event = mapping.event_of(request.event, "event")
        hold, record = await self._books.settle(mapping.caller(), UUID(request.hold_id), event)
        return pb.SettleResponse(hold=mapping.hold_message(hold), record=mapping.record_message(record))

    async def Release(self, request: pb.ReleaseRequest, context: Context) -> pb.ReleaseResponse:
        """Frees a hold."""
        hold = await self._books.release(mapping.caller(), UUID(request.hold_id))
        return pb.ReleaseResponse(hold=mapping.hold_message(hold))

    async def RecordUsage(self, request: pb.RecordUsageRequest, context: Context) -> pb.RecordUsageResponse:
        """Records events without holds."""
        events = [mapping.event_of(event, f"events[{index}]") for index, event in enumerate(request.events)]
        result = await self._books.record(mapping.caller(), events)
        return pb.RecordUsageResponse(recorded=result.recorded, already_known=result.already_known)

    async def QueryUsage(self, request: pb.QueryUsageRequest, context: Context) -> pb.QueryUsageResponse:
        """Lists records with their sums."""
        selection = mapping.selection_of(request, mapping.caller().tenant)
        report, token = await self._books.report(selection, request.page_size, request.page_token)
        return pb.QueryUsageResponse(
            records=[mapping.record_message(record) for record in report.records],
            next_page_token=token,
            total_cost=mapping.money(report.total_cost_micros),
            total_records=report.total_records,
            held=mapping.money(report.held_micros),
        )
