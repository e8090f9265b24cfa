"""Trace context is taken over where it is well formed and begun anew where it is not."""

import pytest

from services.telemetry.context import TraceContext

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_trace_goes_on_with_a_span_of_our_own() -> None:
    context = TraceContext.continued(f"00-{TRACE}-00f067aa0ba902b7-00")
    assert context.trace_id == TRACE
    assert context.span_id != "00f067aa0ba902b7"
    assert context.header() == f"00-{TRACE}-{context.span_id}-00"


@pytest.mark.parametrize(
    "header",
    [None, "", "nonsense", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE}-{'0' * 16}-01", f"01-{TRACE}-a-01"],
)
def test_nonsense_begins_a_new_trace(header: str | None) -> None:
    context = TraceContext.continued(header)
    assert context.trace_id != TRACE
    assert len(context.trace_id) == 32
    assert len(context.span_id) == 16


def test_a_trace_is_sampled_as_its_flags_say() -> None:
    assert TraceContext.continued(f"00-{TRACE}-00f067aa0ba902b7-01").sampled
    assert not TraceContext.continued(f"00-{TRACE}-00f067aa0ba902b7-02").sampled
    assert not TraceContext.new().sampled
