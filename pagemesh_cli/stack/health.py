"""Is each part of the stack well? The same questions gate the start and answer `pagemesh status`."""

import http.client
import json
from collections.abc import Callable, Mapping
from functools import partial

from pagemesh_cli.stack.credentials import Credentials
from pagemesh_cli.stack.ports import LOOPBACK, listens
from pagemesh_cli.stack.postgres import SUPERUSER, check_postgres
from pagemesh_cli.stack.valkey import check_valkey

_HTTP_TIMEOUT_S = 2.0
_BODY_MAX_BYTES = 64 * 1024

Check = Callable[[int], None]
"""Asks the part whose process has this number; raises OSError with what is wrong where it is not well."""


def checks(ports: Mapping[str, int], credentials: Credentials) -> dict[str, Check]:
    """One question for each part, by name."""
    superuser = f"{SUPERUSER}:{credentials.postgres_superuser}"
    dsn = f"postgresql://{superuser}@{LOOPBACK}:{ports['postgres']}/postgres"
    ask: dict[str, Callable[[], None]] = {
        "postgres": lambda: check_postgres(dsn),
        "valkey": lambda: check_valkey(ports["valkey"], credentials.valkey_password),
        "ledger": lambda: check_http(ports["ledger_http"], "/readyz"),
        "extractor": lambda: check_http(ports["extractor_http"], "/readyz"),
        "summarizer": lambda: check_http(ports["summarizer_http"], "/readyz"),
        "edge": lambda: check_http(ports["edge_admin"], "/ready"),
    }
    return {name: partial(_check_own, ports[name], question) for name, question in ask.items()}


def _check_own(port: int, ask: Callable[[], None], pid: int) -> None:
    """Asks, and makes sure that it is our process which answers and not somebody else's on the same port."""
    if not listens(pid, port):
        raise OSError(f"it does not listen on port {port}")
    ask()


def check_http(port: int, path: str) -> None:
    """GET must answer 200; OSError with the components that are down where it does not."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_HTTP_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(_BODY_MAX_BYTES)
    except http.client.HTTPException as error:
        raise OSError(f"port {port} does not speak HTTP: {error!r}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise OSError(_why_not_ready(body) or f"{path} answers {response.status}")


def _why_not_ready(body: bytes) -> str:
    """The names of the components that a service's /readyz reports as down."""
    try:
        report = json.loads(body)
        down = [name for name, part in report["components"].items() if part["required"] and not part["up"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""  # not a service's report, so nothing more is known
    return f"not ready: {', '.join(down)}" if down else "not ready: it is stopping"
