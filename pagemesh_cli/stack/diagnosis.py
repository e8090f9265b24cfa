"""What `pagemesh doctor` looks at. Each look answers a finding; none of them changes anything."""

import datetime as dt
import enum
import importlib.metadata
import importlib.util
import platform
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pagemesh_cli.counting import counted
from pagemesh_cli.stack.checkout import find_checkout
from pagemesh_cli.stack.credentials import load_credentials
from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.ports import holder, is_free
from pagemesh_cli.stack.preflight import DEFAULT_PORTS, PACKAGES
from pagemesh_cli.stack.state import StackState, load_state

if TYPE_CHECKING:
    from pagemesh_cli.stack.certificates import CertificateAuthority

OLDEST_PYTHON = (3, 11)
# A fresh cluster takes 40 MB, its write-ahead log up to 1 GB (PostgreSQL's max_wal_size), documents come on top.
FREE_WARN_BYTES = 5 * 1024**3
FREE_FAIL_BYTES = 512 * 1024**2
CERTIFICATE_WARN = dt.timedelta(days=9)


class Grade(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    grade: Grade
    found: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        return {"what": self.what, "grade": self.grade.value, "found": self.found, "advice": self.advice}


def diagnose(data: DataDir, *, now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)) -> list[Finding]:
    """Every finding, in the order in which a start would stumble over them."""
    state, findings = _state(data)
    return [
        look_at_python(sys.version_info[:2]),
        *look_at_packages(),
        look_at_checkout(),
        look_at_data_dir(data),
        *findings,
        look_at_disk(data),
        look_at_clock(now()),
        *look_at_ports(state),
        *look_at_certificates(data, now()),
        *look_at_parts(data, state),
    ]


def look_at_python(version: tuple[int, ...]) -> Finding:
    found = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    if version < OLDEST_PYTHON:
        return Finding("python", Grade.FAIL, found, "Pagemesh needs Python 3.11 or newer.")
    if sys.platform != "linux":
        advice = "Only Linux ends the stack's processes by itself when their supervisor is killed."
        return Finding("python", Grade.WARN, found, advice)
    return Finding("python", Grade.OK, found)


def look_at_packages() -> Iterator[Finding]:
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            yield Finding(package, Grade.FAIL, "not installed", "Install pagemesh[stack].")
        else:
            yield Finding(package, Grade.OK, importlib.metadata.version(package))


def look_at_checkout() -> Finding:
    try:
        return Finding("services", Grade.OK, str(find_checkout()))
    except StackError as error:
        return Finding("services", Grade.FAIL, "not here", str(error))


def look_at_data_dir(data: DataDir) -> Finding:
    if not data.root.exists():
        return Finding("data directory", Grade.OK, f"{data.root} does not exist yet; `pagemesh up` makes it")
    if not data.root.is_dir():
        return Finding("data directory", Grade.FAIL, f"{data.root} is not a directory", "Choose another: --data-dir.")
    try:
        data.check()
    except StackError as error:
        return Finding("data directory", Grade.FAIL, str(data.root), str(error))
    open_to_others = [
        path
        for path in (data.root, data.secrets_file, data.admin_file)
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if open_to_others:
        advice = f"Others may read {', '.join(map(str, open_to_others))}: chmod go= them."
        return Finding("data directory", Grade.FAIL, "open to other users", advice)
    return Finding("data directory", Grade.OK, f"{data.root}, closed to other users")


def look_at_disk(data: DataDir) -> Finding:
    existing = next(path for path in (data.root, *data.root.parents) if path.exists())
    free = DataDir(existing).free_bytes()
    found = f"{free / 1024**3:.1f} GiB free"
    if free < FREE_FAIL_BYTES:
        return Finding("disk", Grade.FAIL, found, "PostgreSQL stops when it cannot write: make room.")
    if free < FREE_WARN_BYTES:
        return Finding("disk", Grade.WARN, found, "Documents and the write-ahead log may need more: make room.")
    return Finding("disk", Grade.OK, found)


def look_at_clock(now: dt.datetime, *, installed: Path = Path(__file__)) -> Finding:
    """A clock behind the moment when this program was installed is wrong; more cannot be known without a network."""
    written = dt.datetime.fromtimestamp(installed.stat().st_mtime, dt.UTC)
    found = now.isoformat(timespec="seconds")
    if now < written - dt.timedelta(minutes=5):
        advice = f"It is behind the installation of pagemesh ({written.isoformat(timespec='seconds')}): set the clock."
        return Finding("clock", Grade.FAIL, found, advice)
    return Finding("clock", Grade.OK, found)


def look_at_ports(state: StackState | None) -> Iterator[Finding]:
    if state is not None and state.supervisor.alive():
        return  # its parts are asked one by one instead
    for name, port in DEFAULT_PORTS.items():
        if is_free(port):
            continue
        found = holder(port)
        who = f"in use by process {found.pid} ({found.command})" if found else "in use by another process"
        if name == "edge":
            yield Finding(f"port {port}", Grade.FAIL, who, "Stop it, or start with `pagemesh up --port`.")
        else:
            yield Finding(f"port {port}", Grade.WARN, who, f"The stack will take another port for {name}.")


def look_at_certificates(data: DataDir, now: dt.datetime) -> Iterator[Finding]:
    if not data.ca_file.exists() or importlib.util.find_spec("cryptography") is None:
        return
    from pagemesh_cli.stack.certificates import IDENTITIES, CertificateAuthority  # noqa: PLC0415 - pagemesh[stack]

    authority = CertificateAuthority(data.root / "pki")
    ends = {identity: authority.remaining(identity, now=now) for identity in IDENTITIES}
    ends["CA"] = authority.ca_remaining(now=now)
    first = min(ends, key=lambda name: ends[name])
    found = f"the first to end is {first}'s, in {counted(ends[first].days, 'day')}"
    if broken := [identity for identity in IDENTITIES if not _fits(authority, identity)]:
        advice = "Remove the folder of each in pki/tls and start the stack anew: `pagemesh up` makes it again."
        yield Finding("keys", Grade.FAIL, f"not that of the certificate: {', '.join(broken)}", advice)
    else:
        yield Finding("keys", Grade.OK, "each fits its certificate")
    if ends[first] <= dt.timedelta(0):
        yield Finding("certificates", Grade.FAIL, f"{first}'s has ended", "`pagemesh up` renews it; restart the stack.")
    elif ends[first] < CERTIFICATE_WARN:
        yield Finding("certificates", Grade.WARN, found, "A running stack renews them; `pagemesh up` does it too.")
    else:
        yield Finding("certificates", Grade.OK, found)


def _fits(authority: "CertificateAuthority", identity: str) -> bool:
    try:
        return authority.fits(identity)
    except (OSError, ValueError):
        return False  # no key, or none that anybody can read


def look_at_parts(data: DataDir, state: StackState | None) -> Iterator[Finding]:
    if state is None:
        yield Finding("stack", Grade.OK, "not running")
        return
    if not state.supervisor.alive():
        advice = "`pagemesh up` or `pagemesh down` cleans up after it."
        yield Finding("stack", Grade.WARN, f"supervisor {state.supervisor.pid} is gone", advice)
        return
    from pagemesh_cli.stack.health import checks, missing_comforts  # noqa: PLC0415 - pagemesh[stack]

    admin_socket = Path(state.admin_socket) if state.admin_socket else None
    ask = checks(state.ports, load_credentials(data), ca_file=data.ca_file, admin_socket=admin_socket)
    for part in state.parts:
        try:
            ask[part.name](part.process.pid if part.process else 0)
        except OSError as error:
            log = data.logs / f"{part.name}.log"
            yield Finding(part.name, Grade.FAIL, f"port {part.port}: {error}", f"Read {log}.")
            continue
        down = ", ".join(missing_comforts(state.ports, part.name))
        if down:
            advice = f"It does its work without, but not all of it or not as well: read {data.logs / part.name}.log."
            yield Finding(part.name, Grade.WARN, f"answers on port {part.port}, but {down} is down", advice)
        else:
            yield Finding(part.name, Grade.OK, f"answers on port {part.port}")


def _state(data: DataDir) -> tuple[StackState | None, list[Finding]]:
    try:
        return load_state(data), []
    except StackError as error:
        return None, [Finding("stack", Grade.FAIL, "its state cannot be read", str(error))]
