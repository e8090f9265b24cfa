"""grpc.health.v1.Health, of which gRPC's own servicer leaves out List."""

from collections.abc import Sequence
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio


class HealthService(aio.HealthServicer):  # type: ignore[misc] # it has no types
    """Answers for the services that are named, and for all of them as one, which has no name."""

    def __init__(self, services: Sequence[str]) -> None:
        super().__init__()
        self._services = services

    async def List(  # noqa: N802 - the contract's name
        self, request: health_pb2.HealthListRequest, context: Any
    ) -> health_pb2.HealthListResponse:
        """What Check says of each."""
        found = health_pb2.HealthListResponse()
        for name in ("", *self._services):
            found.statuses[name].CopyFrom(await self.Check(health_pb2.HealthCheckRequest(service=name), context))
        return found
