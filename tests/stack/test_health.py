"""How a stack that is not well is told from one that is, with the real edge in front."""

import datetime as dt
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.health import check_http, missing_comforts, pulses
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.process import wait_until
from tests.conftest import RunningStack
from tests.stack.running import Command


@pytest.mark.timeout(180)
def test_a_service_that_the_edge_cannot_reach_makes_the_stack_unhealthy(stack: RunningStack) -> None:
    """The service itself finds nothing wrong: its certificate has ended, which only its callers see."""
    pagemesh = Command.on(stack.data.root)
    authority = CertificateAuthority(stack.data.root / "pki")
    authority.rotate("extractor", now=dt.datetime.now(dt.UTC) - dt.timedelta(days=31))
    try:
        pagemesh.process("extractor").kill()  # so that the edge has to connect anew

        def told() -> bool:
            parts = {part["name"]: part for part in pagemesh("status", "--json").json["parts"]}
            return parts["extractor"]["healthy"] and "no healthy host of extractor" in str(parts["edge"]["problem"])

        assert wait_until(told, timeout_s=60, poll_s=0.5), pagemesh("status").out
        status = pagemesh("status")
        assert status.code == 1
        assert "the public /readyz answers 503: no healthy host of extractor" in status.out
        assert "before, it was killed by SIGKILL" in status.out
        failed = [item for item in pagemesh("doctor", "--json").json["findings"] if item["grade"] == "fail"]
        assert "edge" in [item["what"] for item in failed]
    finally:
        authority.rotate("extractor", now=dt.datetime.now(dt.UTC))
    assert wait_until(lambda: pagemesh("status", "--json").json["healthy"], timeout_s=60, poll_s=0.5)


def test_every_part_of_a_stack_has_a_pulse(stack: RunningStack) -> None:
    asked = pulses(stack.state.ports)
    assert set(asked) == {part.name for part in stack.state.parts}
    for ask in asked.values():
        ask()
    nobody = pulses(dict.fromkeys(stack.state.ports, pick_free_port()))
    for ask in nobody.values():
        with pytest.raises(OSError, match="refused"):
            ask()


def test_who_listens_and_says_nothing_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} does not answer within 1 s"):
            check_http(port, "/readyz")


def test_ports_for_operators_are_shown(stack: RunningStack) -> None:
    pagemesh = Command.on(stack.data.root)
    ports = {part["name"]: part["httpPort"] for part in pagemesh("status", "--json").json["parts"]}
    assert ports["ledger"] == stack.state.ports["ledger_http"]
    assert ports["postgres"] is None
    assert str(stack.state.ports["ledger_http"]) in pagemesh("status").out


def test_the_access_log_is_closed_to_others(stack: RunningStack) -> None:
    assert (stack.data.logs / "edge-access.log").stat().st_mode & 0o777 == 0o600


@contextmanager
def reporting(status: int, components: dict[str, tuple[bool, bool]], **why: str) -> Iterator[int]:
    """Answers a service's /readyz with these components (required, up), all down for the same reason; the port."""
    named = {name: {"required": required, "up": up, **why} for name, (required, up) in components.items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"components": named}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Not between the results of tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=partial(server.serve_forever, poll_interval=0.05), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_what_a_service_does_without_is_told_apart_from_what_it_needs() -> None:
    with reporting(200, {"postgres": (True, True), "cache": (False, False), "events": (False, True)}) as port:
        assert missing_comforts({"summarizer_http": port}, "summarizer") == ["cache"]
        assert missing_comforts({"summarizer_http": port}, "postgres") == []
        check_http(port, "/readyz")
    with (
        reporting(503, {"postgres": (True, False), "cache": (False, False)}) as port,
        pytest.raises(OSError, match=r"^not ready: postgres$"),
    ):
        check_http(port, "/readyz")
    with (
        reporting(503, {"postgres": (True, False)}, reason="SCHEMA_BEHIND", message="Run migrate.") as port,
        pytest.raises(OSError, match=r"^not ready: postgres \(Run migrate\.\)$"),
    ):
        check_http(port, "/readyz")
    assert missing_comforts({"summarizer_http": pick_free_port()}, "summarizer") == []
