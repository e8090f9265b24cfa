"""A collector that takes spans by OTLP over gRPC, in this process, and keeps them; it misbehaves as it is told."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

_MOST_SPANS = 200_000


@dataclass(frozen=True)
class Told:
    """One span, with the service that told it. Ids are hexadecimal; `parent` is empty for the first of a trace."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    is_error: bool
    attributes: dict[str, Any] = field(default_factory=dict)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """`spans` are what came, oldest first; `mode` is ok, refuse or hang."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.spans: list[Told] = []
        self.raw: list[bytes] = []
        """Requests as they came."""
        self._come = threading.Condition()
        self._let_go = threading.Event()
        self.endpoint = ""

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        if self.mode == "hang":
            self._let_go.wait(60)
        if self.mode != "ok":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
        with self._come:
            if len(self.spans) < _MOST_SPANS:
                self.raw.append(request.SerializeToString())
                self.spans.extend(_spans(request))
            self._come.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def until(self, wanted: Callable[[list[Told]], bool], timeout_s: float = 30.0) -> list[Told]:
        """The spans, once they are what is wanted."""
        with self._come:
            assert self._come.wait_for(lambda: wanted(self.spans), timeout_s), [span.name for span in self.spans[-100:]]
            return list(self.spans)

    def let_go(self) -> None:
        """Ends what hangs."""
        self._let_go.set()


@contextmanager
def collecting() -> Iterator[Collector]:
    """One that listens."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        collector.let_go()
        server.stop(0.5).wait()


def _spans(request: trace_service_pb2.ExportTraceServiceRequest) -> Iterator[Told]:
    for of_resource in request.resource_spans:
        service = str(_values(of_resource.resource.attributes).get("service.name", ""))
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Told(
                    service=service,
                    name=span.name,
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    is_error=span.status.code == 2,
                    attributes=_values(span.attributes),
                )


def _values(pairs: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        kind = pair.value.WhichOneof("value")
        return None if kind is None else getattr(pair.value, kind)

    return {pair.key: value(pair) for pair in pairs}
