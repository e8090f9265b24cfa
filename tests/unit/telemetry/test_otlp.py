"""Spans over a real wire to a collector that is well, refuses, hangs, or is not there."""

import time
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from pagemesh_cli.stack.ports import pick_free_port
from services.runtime.call import Call, Identity, acting_as, enter
from services.runtime.errors import NotFound
from services.telemetry import otlp, spans
from services.telemetry.context import TraceContext
from services.telemetry.otlp import OtlpTracer
from services.telemetry.settings import TelemetrySettings
from services.telemetry.start import start
from tests.fakes.collector import Collector, collecting

METHOD = "/pagemesh.extractor.v1.ExtractorService/GetDocument"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
NOBODY = Identity("acme", "apiKeys/k", "", frozenset())


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running
    spans.close()


def recording(endpoint: str, ratio: float = 1.0) -> None:
    start("extractor", TelemetrySettings(otlp_endpoint=endpoint, trace_ratio=ratio))


def lost(outcome: str) -> float:
    return REGISTRY.get_sample_value("pagemesh_spans_total", {"outcome": outcome}) or 0.0


def test_nothing_is_loaded_or_recorded_without_an_endpoint() -> None:
    start("extractor", TelemetrySettings(otlp_endpoint=""))
    assert not spans.recording()
    with acting_as(NOBODY, request_id="r"):
        enter(Call(METHOD, "r", TraceContext.continued(PARENT)))
        assert spans.below("parse") is spans.NO_SPAN
        assert spans.below_trace(PARENT, "job attempt") is spans.NO_SPAN
    assert spans.of_server(METHOD, PARENT) is spans.NO_SPAN
    spans.close()


def test_spans_stand_below_each_other_and_under_their_caller(collector: Collector) -> None:
    recording(collector.endpoint)
    with acting_as(NOBODY, request_id="r"), spans.of_server(METHOD, PARENT) as server:
        assert server.trace is not None
        enter(Call(METHOD, "r", server.trace, identity=NOBODY))
        with pytest.raises(NotFound), spans.within(spans.below("paid call")):
            with spans.below("chat small", kind=spans.Kind.CLIENT, attributes={"gen_ai.request.model": "small"}):
                pass
            raise NotFound("DOCUMENT_NOT_FOUND", "There is none.")
        server.answered(5, "DOCUMENT_NOT_FOUND")
    spans.close()
    chat, paid, call = collector.spans
    assert (call.service, call.name, call.trace, call.parent) == ("extractor", METHOD[1:], TRACE, "00f067aa0ba902b7")
    assert (paid.parent, chat.parent) == (call.span, paid.span)
    assert (paid.is_error, paid.attributes) == (True, {"error.type": "DOCUMENT_NOT_FOUND"})
    assert call.attributes["rpc.grpc.status_code"] == 5
    assert not call.is_error
    assert chat.attributes == {"gen_ai.request.model": "small"}


def test_the_words_of_an_error_are_in_no_span(collector: Collector) -> None:
    recording(collector.endpoint)
    with pytest.raises(RuntimeError), spans.below_trace(PARENT, "job attempt"):
        raise RuntimeError("Xylophonq")
    spans.close()
    (attempt,) = collector.spans
    assert (attempt.is_error, attempt.attributes) == (True, {"error.type": "RuntimeError"})
    assert b"Xylophonq" not in collector.raw[0]


@pytest.mark.parametrize(("header", "ratio", "told"), [(None, 1.0, 1), (None, 0.0, 0), (PARENT, 0.0, 1)])
def test_who_begins_a_trace_decides_whether_it_is_recorded(
    collector: Collector, header: str | None, ratio: float, told: int
) -> None:
    recording(collector.endpoint, ratio)
    with spans.of_server(METHOD, header):
        pass
    with spans.of_server(METHOD, PARENT[:-2] + "00") as span:
        assert span is spans.NO_SPAN
    spans.close()
    assert len(collector.spans) == told


@pytest.mark.parametrize("how", ["absent", "refuses", "hangs"])
def test_a_collector_that_does_not_take_them_costs_spans_and_no_time(
    collector: Collector, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "_TIMEOUT_S", 0.3)
    collector.mode = {"absent": "ok", "refuses": "refuse", "hangs": "hang"}[how]
    before = lost("undelivered")
    recording(f"http://127.0.0.1:{pick_free_port()}" if how == "absent" else collector.endpoint)
    for _ in range(10):
        with spans.of_server(METHOD, None):
            pass
    spans.close()
    assert collector.spans == []
    assert lost("undelivered") - before == 10


def test_what_does_not_fit_into_the_queue_is_counted(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "QUEUE_SPANS", 600)
    monkeypatch.setattr(otlp, "_TIMEOUT_S", 5.0)
    collector.mode = "hang"
    before = lost("dropped")
    tracer = OtlpTracer("extractor", TelemetrySettings(otlp_endpoint=collector.endpoint))
    spans.record_with(tracer)
    for _ in range(1000):
        with spans.of_server(METHOD, None):
            pass
    assert lost("dropped") - before == 400
    collector.mode = "ok"
    collector.let_go()
    spans.close()
    assert len(collector.spans) == 600


def test_the_end_is_not_held_up_by_a_collector_that_hangs(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "_GRACE_S", 0.2)
    collector.mode = "hang"
    recording(collector.endpoint)
    with spans.of_server(METHOD, None):
        pass
    begun = time.monotonic()
    spans.close()
    assert time.monotonic() - begun < 30, "the collector hangs for a minute"
