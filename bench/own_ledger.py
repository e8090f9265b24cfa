"""A ledger of its own for a benchmark: a real process behind mTLS, on a PostgreSQL of its own with fsync on."""

import contextlib
import secrets
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import psycopg

from bench.own_postgres import own_postgres
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.process import Process, ProcessSpec

_ROOT = Path(__file__).parent.parent
TENANT = "bench"
_OPTIONS = (("grpc.ssl_target_name_override", "ledger.pagemesh.local"),)


@dataclass(frozen=True)
class OwnLedger:
    """Where it is."""

    dsn: str
    target: str
    pki: CertificateAuthority

    def channel(self, identity: str) -> grpc.aio.Channel:
        """A channel for one identity of the mesh."""
        folder = self.pki.tls_dir(identity)
        credentials = grpc.ssl_channel_credentials(
            (folder / "ca.crt").read_bytes(), (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
        )
        return grpc.aio.secure_channel(self.target, credentials, options=_OPTIONS)

    def database(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection that sees the rows of TENANT."""
        return psycopg.connect(self.dsn, options=f"-c pagemesh.tenant={TENANT} -c timezone=UTC")


@contextlib.contextmanager
def own_ledger() -> Iterator[OwnLedger]:
    """Up, with TENANT in its books, and down again whatever happens."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pm-bench-")))
        dsn = stack.enter_context(own_postgres("ledger"))
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (TENANT,))
            connection.execute("INSERT INTO ledger.tenants VALUES (%s, 'bench', true, now())", (TENANT,))
        pki = CertificateAuthority(root / "pki")
        pki.ensure(now=datetime.now(UTC))
        target = f"127.0.0.1:{pick_free_port()}"
        service = Process(_spec(dsn, target, pki, root / "ledger.log"))
        stack.callback(service.stop)
        ledger = OwnLedger(dsn, target, pki)
        service.wait_ready(lambda: _check(ledger), timeout_s=60)
        yield ledger


def _spec(dsn: str, target: str, pki: CertificateAuthority, log: Path) -> ProcessSpec:
    return ProcessSpec(
        name="ledger",
        command=(sys.executable, "-m", "services.ledger"),
        log=log,
        directory=_ROOT,
        environment={
            "PATH": "/usr/bin:/bin",
            "PAGEMESH_DATABASE_URL": dsn,
            "PAGEMESH_KEY_PEPPER": secrets.token_hex(16),
            "PAGEMESH_GRPC_LISTEN": target,
            "PAGEMESH_HTTP_LISTEN": f"127.0.0.1:{pick_free_port()}",
            "PAGEMESH_TLS_DIR": str(pki.tls_dir("ledger")),
        },
    )


def _check(ledger: OwnLedger) -> None:
    folder = ledger.pki.tls_dir("edge")
    credentials = grpc.ssl_channel_credentials(
        (folder / "ca.crt").read_bytes(), (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
    )
    with grpc.secure_channel(ledger.target, credentials, options=_OPTIONS) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=1)
        except grpc.FutureTimeoutError as exc:
            raise OSError("not ready") from exc
