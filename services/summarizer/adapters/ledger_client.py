"""The ledger as the summarizer's books."""

import math

from google.protobuf import duration_pb2, timestamp_pb2

from pagemesh.common.v1 import money_pb2
from pagemesh.ledger.v1 import ledger_service_pb2 as ledger_pb2
from pagemesh.ledger.v1 import ledger_service_pb2_grpc, usage_pb2
from services.runtime.clients import MeshClient
from services.summarizer.domain.ports import Held
from services.summarizer.domain.values import Money, TokenCount, UsageEvent

CAP_S = 2.0
"""Longest time for one call of the ledger."""


class LedgerBooks:
    """Books on the LedgerService. Its methods are idempotent by the ids that they carry."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = ledger_service_pb2_grpc.LedgerServiceStub(client.channel)

    async def reserve(self, hold_id: str, model: str, most: TokenCount, ttl_s: float, *, job: str = "") -> Held:
        """Sets the highest possible price aside."""
        request = ledger_pb2.ReserveRequest(
            hold_id=hold_id,
            model=model,
            max_input_tokens=most.sent,
            max_output_tokens=most.output_tokens,
            ttl=duration_pb2.Duration(seconds=math.ceil(ttl_s)),
            job=job,
        )
        response: ledger_pb2.ReserveResponse = await self._client.unary(self._stub.Reserve, request, cap_s=CAP_S)
        return Held(response.hold.hold_id, _money(response.hold.amount))

    async def settle(self, hold_id: str, event: UsageEvent) -> Money:
        """Records the call and closes the hold."""
        request = ledger_pb2.SettleRequest(hold_id=hold_id, event=_event(event))
        response: ledger_pb2.SettleResponse = await self._client.unary(self._stub.Settle, request, cap_s=CAP_S)
        return _money(response.record.cost)

    async def release(self, hold_id: str) -> None:
        """Frees the hold."""
        request = ledger_pb2.ReleaseRequest(hold_id=hold_id)
        await self._client.unary(self._stub.Release, request, cap_s=CAP_S)

    async def record(self, events: tuple[UsageEvent, ...]) -> None:
        """Records events that had no hold."""
        request = ledger_pb2.RecordUsageRequest(events=[_event(event) for event in events])
        await self._client.unary(self._stub.RecordUsage, request, cap_s=CAP_S)


def _event(event: UsageEvent) -> usage_pb2.UsageEvent:
    occurred = timestamp_pb2.Timestamp()
    occurred.FromNanoseconds(int(event.occurred_at_s * 1_000_000_000))
    return usage_pb2.UsageEvent(
        event_id=event.event_id,
        model=event.model,
        input_tokens=event.tokens.sent,
        output_tokens=event.tokens.output_tokens,
        operation=event.operation,
        document=event.document,
        request_id=event.request_id,
        occur_time=occurred,
        job=event.job,
        tags=dict(event.tags),
    )


def _money(money: money_pb2.Money) -> Money:
    return Money(money.currency, money.micros)
