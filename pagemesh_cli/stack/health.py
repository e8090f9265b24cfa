"""Is each part of the stack well? The same questions gate the start and answer `pagemesh status`."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pagemesh_cli.stack.asking import OK, answers_to, get, get_over_socket, get_over_tls
from pagemesh_cli.stack.checkout import SERVICES, WORKER
from pagemesh_cli.stack.credentials import Credentials
from pagemesh_cli.stack.ports import LOOPBACK, listens
from pagemesh_cli.stack.postgres import SUPERUSER, check_postgres
from pagemesh_cli.stack.valkey import check_valkey

# PostgreSQL's SSLRequest, which its postmaster answers with one byte in every state, also while it recovers.
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
# Flags of envoy.admin.v3.HostHealthStatus.
_TAKEN_OUT_BY = ("failed_active_health_check", "failed_outlier_check", "pending_active_hc")

Check = Callable[[int], None]
"""Asks the part whose process has this number; raises OSError with what is wrong where it is not well."""


def checks(
    ports: Mapping[str, int], credentials: Credentials, *, ca_file: Path, admin_socket: Path | None
) -> dict[str, Check]:
    """One question for each part, by name. `admin_socket` is Envoy's own, which knows what is behind the edge."""
    superuser = f"{SUPERUSER}:{credentials.postgres_superuser}"
    dsn = f"postgresql://{superuser}@{LOOPBACK}:{ports['postgres']}/postgres"
    ask: dict[str, Callable[[], None]] = {
        "postgres": lambda: check_postgres(dsn),
        "valkey": lambda: check_valkey(ports["valkey"], credentials.valkey_password),
        "edge": lambda: check_edge(ports, ca_file, admin_socket),
    }
    for service in (*SERVICES, WORKER):
        ask[service] = partial(check_http, ports[f"{service}_http"], "/readyz")
    return {name: partial(_check_own, ports[name], question) for name, question in ask.items()}


def pulses(ports: Mapping[str, int]) -> dict[str, Callable[[], None]]:
    """For each part the least that a process which is not stuck does; OSError where it does not within a second.

    Unlike `checks` they do not ask for what stands behind the part: nothing gets better by restarting a service whose
    database is away.
    """
    return {
        "postgres": partial(answers_to, ports["postgres"], _SSL_REQUEST),
        "valkey": partial(answers_to, ports["valkey"], b"PING\r\n"),
        # Whatever the status: Envoy says 503 while it starts and while it drains.
        "edge": lambda: _heard(ports["edge_admin"], "/ready"),
        **{service: partial(check_http, ports[f"{service}_http"], "/livez") for service in (*SERVICES, WORKER)},
    }


def missing_comforts(ports: Mapping[str, int], part: str) -> list[str]:
    """Components that are down and that the service does without; none for a part that is no service or not there."""
    if part not in (*SERVICES, WORKER):
        return []
    try:
        _, body = get(ports[f"{part}_http"], "/readyz")
    except OSError:
        return []  # its check says so, and better
    return _down(body, required=False)


def check_http(port: int, path: str) -> None:
    """GET must answer 200; OSError with the components that are down where it does not."""
    status, body = get(port, path)
    if status != OK:
        raise OSError(_why_not_ready(body) or f"{path} answers {status}")


def check_edge(ports: Mapping[str, int], ca_file: Path, admin_socket: Path | None) -> None:
    """Envoy itself is ready, and so is the public side of it; OSError where not, with the services it cannot reach."""
    check_http(ports["edge_admin"], "/ready")
    status, _ = get_over_tls(ports["edge"], "/readyz", ca_file=ca_file)
    if status != OK:
        without = ", ".join(_without_healthy_host(admin_socket))
        reason = f": no healthy host of {without}" if without else ""
        raise OSError(f"the public /readyz answers {status}{reason}")


def _without_healthy_host(admin_socket: Path | None) -> list[str]:
    """The services of which Envoy knows no host that it may send calls to; none where it cannot be asked."""
    if admin_socket is None:
        return []
    try:
        _, body = get_over_socket(admin_socket, "/clusters?format=json")
        clusters = json.loads(body)["cluster_statuses"]
        return [
            cluster["name"]
            for cluster in clusters
            if cluster["name"] in SERVICES and not any(_is_healthy(host) for host in cluster.get("host_statuses", []))
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # the status alone has to do


def _is_healthy(host: Mapping[str, Mapping[str, object]]) -> bool:
    """Of an envoy.admin.v3.HostStatus, which names only the flags that are set."""
    return not any(host["health_status"].get(flag) for flag in _TAKEN_OUT_BY)


def _heard(port: int, path: str) -> None:
    get(port, path)


def _check_own(port: int, ask: Callable[[], None], pid: int) -> None:
    """Asks, and makes sure that it is our process which answers and not somebody else's on the same port."""
    if not listens(pid, port):
        raise OSError(f"it does not listen on port {port}")
    ask()


def _why_not_ready(body: bytes) -> str:
    """What a service's /readyz reports as down; empty where it is no such report."""
    try:
        json.loads(body)["components"]
    except (ValueError, KeyError, TypeError):
        return ""
    down = _down(body, required=True)
    return f"not ready: {', '.join(down)}" if down else "not ready: it is stopping"


def _why(part: Mapping[str, object]) -> str:
    """What the service says of a component, unless that is only that there is more in its log."""
    return f" ({part['message']})" if part.get("reason", "CHECK_FAILED") != "CHECK_FAILED" else ""


def _down(body: bytes, *, required: bool) -> list[str]:
    try:
        components = json.loads(body)["components"].items()
        down = [(name, part) for name, part in components if part["required"] is required and not part["up"]]
        return [f"{name}{_why(part) if required else ''}" for name, part in down]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []  # not a service's report, so nothing more is known
