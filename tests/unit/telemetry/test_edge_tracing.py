"""What the edge is told of traces, out of its environment."""

from pathlib import Path

import pytest

from pagemesh_cli.stack.edge_tracing import OFF, EdgeTracing
from pagemesh_cli.stack.errors import StackError


def test_without_an_endpoint_there_are_no_spans() -> None:
    empty = {"PAGEMESH_OTLP_ENDPOINT": "", "PAGEMESH_OTLP_CA_FILE": "", "PAGEMESH_TRACE_RATIO": ""}
    assert EdgeTracing.of_environment(empty) == OFF
    assert OFF.values() == {"TRACING": None, "COLLECTOR_ENDPOINTS": [], "COLLECTOR_TLS": None}


def test_settings_are_read_with_their_prefix() -> None:
    given = {
        "PAGEMESH_EDGE_OTLP_ENDPOINT": "https://collector.example.org:4317",
        "PAGEMESH_EDGE_OTLP_CA_FILE": "/etc/ca.pem",
        "PAGEMESH_EDGE_TRACE_RATIO": "0.25",
    }
    tracing = EdgeTracing.of_environment(given, "PAGEMESH_EDGE_")
    assert tracing == EdgeTracing("https://collector.example.org:4317", Path("/etc/ca.pem"), 0.25)
    values = tracing.values()
    assert "'numerator': 250000" in str(values["TRACING"])
    assert "/etc/ca.pem" in str(values["COLLECTOR_TLS"])
    assert EdgeTracing("http://collector:4317").values()["COLLECTOR_TLS"] is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRACE_RATIO", "1.5"),
        ("TRACE_RATIO", "often"),
        ("TRACE_RATIO", "nan"),
        ("OTLP_ENDPOINT", "collector:4317"),
        ("OTLP_ENDPOINT", "http://collector"),
        ("OTLP_ENDPOINT", "http://user@collector:4317"),
        ("OTLP_ENDPOINT", "http://collector:4317/v1/traces"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(StackError, match=f"PAGEMESH_{name}"):
        EdgeTracing.of_environment({f"PAGEMESH_{name}": value})


def test_whatever_tells_of_the_client_is_replaced() -> None:
    tracing = str(EdgeTracing("http://collector:4317").values()["TRACING"])
    for tag in ("peer.address", "user_agent", "http.url", "downstream_cluster"):
        assert f"'tag': '{tag}'" in tracing
