"""Spans by OpenTelemetry, exported by OTLP over gRPC. Loading it takes half a second: only who records imports it.

A collector that is away, refuses or hangs costs spans and nothing else: they wait in a bounded queue, and a thread of
its own brings them away. What is lost is counted.
"""

import asyncio
import logging
import threading
from pathlib import Path

import grpc
import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as OpenTelemetrySpan
from prometheus_client import Counter

from services.runtime.errors import PagemeshError
from services.telemetry.context import TraceContext
from services.telemetry.settings import TelemetrySettings
from services.telemetry.spans import NO_SPAN, Attributes, Kind, Span

QUEUE_SPANS = 4096
"""Spans that wait for the collector, 2 to 4 MB of them."""
_BATCH_SPANS = 512
_EVERY_MS = 1_000
_TIMEOUT_S = 3.0
"""For one batch with its retries."""
_GRACE_S = 5.0
"""For what is left when the process ends."""
_MAX_ATTRIBUTE_CHARS = 256
_OK, _CANCELLED = 0, 1
_SERVER_FAULTS = frozenset({2, 4, 12, 13, 14, 15})
"""Of a server's answers, these tell of a fault of its own: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/."""
_KINDS = {Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT, Kind.INTERNAL: SpanKind.INTERNAL}

_SPANS = Counter(
    "pagemesh_spans",
    "Spans that ended, by what became of them: exported, undelivered (the collector did not take them), dropped (the "
    "queue was full).",
    ["outcome"],
)
_EXPORTED, _UNDELIVERED, _DROPPED = (_SPANS.labels(outcome) for outcome in ("exported", "undelivered", "dropped"))

log = structlog.get_logger()


class OtlpTracer:
    """Records spans of one process."""

    def __init__(self, service: str, settings: TelemetrySettings) -> None:
        assert settings.otlp_endpoint is not None
        # It tells of every batch that fails; here a line is written when that begins and when it ends.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = OTLPSpanExporter(
            endpoint=settings.otlp_endpoint,
            insecure=settings.otlp_endpoint.startswith("http:"),
            credentials=_credentials(settings.otlp_ca_file),
            timeout=_TIMEOUT_S,
        )
        room = _Room(self._exporter)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio), remote_parent_sampled=ALWAYS_ON),
            resource=Resource({"service.name": service, "service.namespace": "pagemesh"}),
            span_limits=SpanLimits(
                max_attributes=32, max_events=8, max_links=4, max_attribute_length=_MAX_ATTRIBUTE_CHARS
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(_Bounded(room))
        self._tracer = self._provider.get_tracer("pagemesh")

    def begin(self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes) -> Span:
        """See the port."""
        span = self._tracer.start_span(
            name,
            context=Context() if parent is None else _context(parent),
            kind=_KINDS[kind],
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        )
        return _Recorded(span, kind, "rpc.system" in attributes) if span.is_recording() else NO_SPAN

    def close(self) -> None:
        """Exports what is left, within a few seconds; the rest is lost."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(_GRACE_S)
        if last.is_alive():
            self._exporter.shutdown()


class _Recorded(Span):
    """A span of OpenTelemetry."""

    def __init__(self, span: OpenTelemetrySpan, kind: Kind, is_rpc: bool) -> None:
        context = span.get_span_context()
        self.trace = TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", "01")
        self._span = span
        self._faults = _SERVER_FAULTS if kind is Kind.SERVER else None
        self._wants_code = is_rpc
        self._is_told = False

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._is_told:
            pass  # whoever told it knows better than the exception
        elif isinstance(error, grpc.aio.AioRpcError):
            self.answered(error.code().value[0], error.code().name)
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.answered(_CANCELLED, "CANCELLED")
        elif error is not None:
            self._fails(error.reason if isinstance(error, PagemeshError) else type(error).__name__)
        elif self._wants_code:
            self.answered(_OK, "")
        self._span.end()

    def say(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def answered(self, code: int, reason: str) -> None:
        self._is_told = True
        if self._wants_code:
            self._span.set_attribute("rpc.grpc.status_code", code)
        is_fault = code not in (_OK, _CANCELLED) if self._faults is None else code in self._faults
        if is_fault:
            self._fails(reason)
        elif reason:
            self._span.set_attribute("error.type", reason)

    def _fails(self, reason: str) -> None:
        self._span.set_attribute("error.type", reason)
        self._span.set_status(Status(StatusCode.ERROR))


class _Room(SpanExporter):
    """Counts what waits for the collector, and what becomes of it."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lock = threading.Lock()
        self._taken = 0
        self._failing = False

    def take(self) -> bool:
        """Whether there is room for one more."""
        with self._lock:
            if self._taken >= QUEUE_SPANS:
                return False
            self._taken += 1
            return True

    def export(self, spans: "list[ReadableSpan]") -> SpanExportResult:  # type: ignore[override]  # it is always a list
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            with self._lock:
                self._taken -= len(spans)
            delivered = result is SpanExportResult.SUCCESS
            (_EXPORTED if delivered else _UNDELIVERED).inc(len(spans))
            if delivered is self._failing:
                self._failing = not delivered
                log.warning("spans_not_delivered" if self._failing else "spans_delivered_again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Bounded(SpanProcessor):
    """A queue whose end is seen: what does not fit is counted, and nobody waits."""

    def __init__(self, room: _Room) -> None:
        self._room = room
        self._queue = BatchSpanProcessor(
            room, max_queue_size=QUEUE_SPANS, schedule_delay_millis=_EVERY_MS, max_export_batch_size=_BATCH_SPANS
        )

    def on_end(self, span: ReadableSpan) -> None:
        if self._room.take():
            self._queue.on_end(span)
        else:
            _DROPPED.inc()

    def shutdown(self) -> None:
        self._queue.shutdown()  # type: ignore[no-untyped-call]


def _credentials(ca_file: Path | None) -> grpc.ChannelCredentials | None:
    return None if ca_file is None else grpc.ssl_channel_credentials(root_certificates=ca_file.read_bytes())


def _context(parent: TraceContext) -> Context:
    span = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(span), Context())
