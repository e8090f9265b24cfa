"""Where the client verbs connect, with which key, trusting which CA."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.stack.credentials import load_admin_key
from pagemesh_cli.stack.layout import DataDir, default_root
from pagemesh_cli.stack.state import load_state


@dataclass(frozen=True)
class Connection:
    """An edge, and how to log in there."""

    target: str
    """`host:port`."""
    key: str = field(repr=False)
    ca: bytes | None = field(repr=False)
    """PEM; None: the public roots."""
    local: bool
    """It is on this machine: no proxy stands between."""
    signing_key: Path | None = None
    """File of the private key that calls are signed with."""


def resolve(
    *,
    url: str | None,
    key: str | None,
    ca_file: Path | None,
    data_dir: Path | None,
    signing_key: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Connection:
    """Options first, then PAGEMESH_URL, _API_KEY, _CA_FILE and _SIGNING_KEY_FILE, then the stack of the data directory.

    The data directory's key and CA are used for that stack only: a key is never sent to another address. Raises
    Failure where something is missing or wrong.
    """
    url = url or environment.get("PAGEMESH_URL")
    key = key or environment.get("PAGEMESH_API_KEY")
    ca_path = ca_file or (Path(environment["PAGEMESH_CA_FILE"]) if environment.get("PAGEMESH_CA_FILE") else None)
    data = DataDir(data_dir or default_root())
    if url is None:
        url = _local_url(data)
        admin = load_admin_key(data)
        key = key or (admin.secret if admin is not None else None)
        ca_path = ca_path or data.ca_file
    host, target = _split(url)
    if not key:
        raise Failure(
            "No API key was given.",
            ExitCode.REFUSED,
            "NO_KEY",
            advice="Set PAGEMESH_API_KEY, or use --key. `pagemesh keys create` makes one.",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Failure("The API key has characters that no key has.", ExitCode.USAGE, "BAD_KEY")
    signing = environment.get("PAGEMESH_SIGNING_KEY_FILE")
    return Connection(
        target=target,
        key=key,
        ca=_read_ca(ca_path),
        local=host in ("localhost", "127.0.0.1", "::1"),
        signing_key=signing_key or (Path(signing) if signing else None),
    )


def _local_url(data: DataDir) -> str:
    state = load_state(data)
    if state is None or not state.supervisor.alive():
        failure = no_stack(data)
        failure.advice = "Start one with `pagemesh up`, or name another with --url or PAGEMESH_URL."
        raise failure
    return state.url


def no_stack(data: DataDir) -> Failure:
    """What a verb says that needs the stack of this directory, where none runs."""
    return Failure(
        f"No stack is running on {data.root}.",
        ExitCode.UNREACHABLE,
        "NO_STACK",
        advice="Start one with `pagemesh up`, or name its directory with --data-dir or PAGEMESH_HOME.",
    )


def _split(url: str) -> tuple[str, str]:
    """The host, and `host:port`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if parts.scheme != "https" or not host or parts.path.strip("/") or parts.username:
        raise Failure(
            f"{url!r} is not an address of a Pagemesh.",
            ExitCode.USAGE,
            "BAD_URL",
            advice="It looks like https://localhost:8443: always TLS, no path, no user.",
        )
    return host, f"[{host}]:{port or 443}" if ":" in host else f"{host}:{port or 443}"


def _read_ca(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(
            f"Cannot read the CA file {path}: {error.strerror}.",
            ExitCode.USAGE,
            "BAD_CA_FILE",
            advice="Check --ca-file or PAGEMESH_CA_FILE.",
        ) from error
