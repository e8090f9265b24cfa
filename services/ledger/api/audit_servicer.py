"""pagemesh.ledger.v1.AuditService."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody

from pagemesh.ledger.v1 import audit_service_pb2 as pb
from pagemesh.ledger.v1.audit_service_pb2_grpc import AuditServiceServicer
from services.ledger.api import audit_mapping, mapping
from services.ledger.domain.audit_books import AuditBooks

Context = grpc.aio.ServicerContext[Any, Any]

_CONTENT_TYPE = "application/x-ndjson"


class AuditServicer(AuditServiceServicer):
    """Translates between the contract and the audit books."""

    def __init__(self, books: AuditBooks) -> None:
        self._books = books

    async def RecordEvents(self, request: pb.RecordEventsRequest, context: Context) -> pb.RecordEventsResponse:
        """Chains what other services tell."""
        events = [audit_mapping.event_of(event, f"events[{index}]") for index, event in enumerate(request.events)]
        appended = await self._books.record(events)
        return pb.RecordEventsResponse(recorded=appended.recorded, already_known=appended.already_known)

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsResponse:
        """Lists records."""
        selection = audit_mapping.selection_of(request, mapping.caller().tenant)
        records, token = await self._books.list(selection, request.page_size, request.page_token)
        return pb.ListEventsResponse(
            records=[audit_mapping.record_message(record) for record in records], next_page_token=token
        )

    async def ExportEvents(
        self, request: pb.ExportEventsRequest, context: Context
    ) -> AsyncIterator[pb.ExportEventsResponse]:
        """Sends the chain and what proves it."""
        tenant = mapping.caller().tenant
        # The head first: what is chained from now on is behind it.
        head = await self._books.head(tenant)
        beginning = await self._books.beginning(tenant, request.first_sequence)
        partial = 0 < beginning.sequence == request.first_sequence - 1
        first = audit_mapping.begin_line(tenant, beginning, partial=partial)
        yield pb.ExportEventsResponse(content=HttpBody(content_type=_CONTENT_TYPE, data=first))
        async for records in self._books.export(tenant, beginning, head):
            for piece in audit_mapping.pieces(map(audit_mapping.record_line, records)):
                yield pb.ExportEventsResponse(content=HttpBody(data=piece))
        yield pb.ExportEventsResponse(content=HttpBody(data=audit_mapping.head_line(head)))

    async def GetChainHead(self, request: pb.GetChainHeadRequest, context: Context) -> pb.GetChainHeadResponse:
        """Answers the chain's newest place."""
        return pb.GetChainHeadResponse(head=audit_mapping.head_message(await self._books.head(mapping.caller().tenant)))
