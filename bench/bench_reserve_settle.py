"""Reserve and Settle from 16 concurrent callers of one tenant with one hard budget, against plain SQL.

The peer is pgbench (C, 16 connections, prepared statements) with the same two transactions on the same tables of the
same server: a hold of an active tenant is inserted and its amount taken from the budget's row where there is room; the
hold is closed, its id and its record inserted, which queues its sums by the same trigger, and the totals moved. Both
share the tenant's advisory lock and stand behind row-level security; the peer has no replays and alerts to think of.
Ours is the whole service: a Python client over mTLS, gRPC with every concern on, decisions, group commit. They take
turns; both share the machine's cores with the server. The ratio is pairs a second.
"""

import asyncio
import datetime as dt
import os
import re
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import uvloop
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from bench.cpu_seconds import tree
from bench.report import report
from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1 import usage_pb2
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.postgres import PostgresServer
from pagemesh_cli.stack.process import Process, ProcessSpec
from services.database.migrate import migrate

CALLERS = 16
ROUNDS = 10
ROUND_S = 3
GOAL = 0.5
ROOT = Path(__file__).parents[1]
PEPPER = "p" * 40
MODEL = "offline/lexrank"

PLAIN_SQL = """
BEGIN;
INSERT INTO ledger.holds (tenant, hold_id, state, model, max_input_tokens, max_output_tokens, amount_micros,
    price_book_version, actor, create_time, expire_time)
SELECT 'peer', gen_random_uuid(), 'HELD', 'offline/lexrank', 50000, 0, 1000, 1, 'apiKeys/0000000000000000', now(),
    now() + interval '60 s'
FROM ledger.tenants, pg_advisory_xact_lock_shared(7101, hashtext('peer')) WHERE id = 'peer' AND active
RETURNING hold_id \\gset
UPDATE ledger.budget_periods p SET held_micros = held_micros + 1000 FROM ledger.budgets b
WHERE p.tenant = 'peer' AND p.budget = 'operator' AND p.period_start = '1970-01-01Z' AND b.tenant = 'peer'
    AND b.id = 'operator' AND settled_micros + held_micros + 1000 <= b.hard_micros;
COMMIT;
BEGIN;
UPDATE ledger.holds SET state = 'SETTLED' FROM pg_advisory_xact_lock_shared(7101, hashtext('peer'))
WHERE tenant = 'peer' AND hold_id = cast(:hold_id AS uuid) AND state = 'HELD';
WITH id AS (
    INSERT INTO ledger.usage_ids (tenant, event_id, occur_time, hold_id)
    VALUES ('peer', gen_random_uuid(), now(), cast(:hold_id AS uuid)) RETURNING event_id
)
INSERT INTO ledger.usage_records (tenant, event_id, hold_id, model, input_tokens, output_tokens, operation, document,
    request_id, occur_time, tags, cost_micros, price_book_version, actor, record_time, user_name)
SELECT 'peer', event_id, cast(:hold_id AS uuid), 'offline/lexrank', 45000, 0, 'summarize.map', '',
    'request-1', now(), '{}', 900, 1, 'apiKeys/0000000000000000', now(),
    ledger.user_of('peer', 'apiKeys/0000000000000000') FROM id;
UPDATE ledger.budget_periods SET held_micros = held_micros - 1000, settled_micros = settled_micros + 900
WHERE tenant = 'peer' AND budget = 'operator' AND period_start = '1970-01-01Z';
COMMIT;
"""


@dataclass(frozen=True)
class Database:
    """A server of its own with the ledger's schema."""

    server: PostgresServer
    dsn: str
    """Of the ledger's role."""
    pid: int


@dataclass(frozen=True)
class Round:
    """What one side did in its turn, and the processor's seconds that it took."""

    pairs: int
    seconds: float
    client: float
    service: float
    database: float

    @property
    def pairs_per_s(self) -> float:
        return self.pairs / self.seconds


@contextmanager
def postgres(directory: Path) -> Iterator[Database]:
    """Up, and down again whatever happens."""
    passwords = {name: secrets.token_hex(8) for name in ("extractor", "summarizer", "ledger")}
    server = PostgresServer(
        directory=directory / "pg", port=pick_free_port(), password=secrets.token_hex(8), log=directory / "pg.log"
    )
    server.initialise()
    process = Process(server.spec())
    try:
        process.wait_ready(server.check, timeout_s=30)
        server.ensure_database("pagemesh")
        server.apply_roles(ROOT / "deploy" / "postgres" / "roles.sql", passwords, database="pagemesh")
        dsn = server.dsn("ledger", passwords["ledger"], database="pagemesh")
        migrate(dsn, directory=ROOT / "services" / "ledger" / "migrations", schema="ledger")
        assert process.id is not None
        yield Database(server, dsn, process.id.pid)
    finally:
        process.stop()
        server.close()


def environment(dsn: str, **changes: str) -> dict[str, str]:
    """What the ledger's commands need."""
    return {"PAGEMESH_DATABASE_URL": dsn, "PAGEMESH_KEY_PEPPER": PEPPER, "PATH": "/usr/bin:/bin", **changes}


@contextmanager
def ledger(directory: Path, dsn: str, pki: CertificateAuthority) -> Iterator[tuple[str, int]]:
    """The service; answers where it listens, and its process."""
    for tenant in ("ours", "peer"):
        command = [sys.executable, "-m", "services.ledger", "bootstrap", "--tenant", tenant, "--no-key"]
        command += ["--hard-budget-micros", str(10**14)]
        subprocess.run(command, check=True, cwd=ROOT, env=environment(dsn), stdout=subprocess.DEVNULL)
    target = f"127.0.0.1:{pick_free_port()}"
    variables = environment(
        dsn,
        PAGEMESH_GRPC_LISTEN=target,
        PAGEMESH_HTTP_LISTEN=f"127.0.0.1:{pick_free_port()}",
        PAGEMESH_TLS_DIR=str(pki.tls_dir("ledger")),
        PAGEMESH_DRAIN_S="0",
    )
    log = directory / "ledger.log"
    serve = (sys.executable, "-m", "services.ledger")
    process = Process(ProcessSpec(name="ledger", command=serve, log=log, directory=ROOT, environment=variables))
    try:
        assert process.id is not None
        yield target, process.id.pid
    finally:
        process.stop()


class Callers:
    """Sixteen callers, one pair of calls after the other each."""

    def __init__(self, target: str, pki: CertificateAuthority) -> None:
        folder = pki.tls_dir("summarizer")
        credentials = grpc.ssl_channel_credentials(
            (folder / "ca.crt").read_bytes(), (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
        )
        options = (("grpc.ssl_target_name_override", "ledger.pagemesh.local"),)
        self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        self._stub = LedgerServiceStub(self._channel)
        self._metadata = (("x-pagemesh-tenant", "ours"), ("x-pagemesh-actor", "apiKeys/0000000000000000"))

    async def ready(self) -> None:
        async with asyncio.timeout(60):
            await self._channel.channel_ready()

    async def pairs(self, seconds: float) -> int:
        """So many were made."""
        until = time.perf_counter() + seconds
        return sum(await asyncio.gather(*(self._caller(until) for _ in range(CALLERS))))

    async def _caller(self, until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            await self._pair()
            count += 1
        return count

    async def _pair(self) -> None:
        hold_id = str(uuid.uuid4())
        reserve = pb.ReserveRequest(
            hold_id=hold_id, model=MODEL, max_input_tokens=50_000, ttl=Duration(seconds=60), max_output_tokens=0
        )
        await self._stub.Reserve(reserve, metadata=self._metadata, timeout=30)
        event = usage_pb2.UsageEvent(
            event_id=hold_id,
            model=MODEL,
            input_tokens=45_000,
            operation="summarize.map",
            request_id="request-1",
            occur_time=Timestamp(seconds=int(time.time())),
        )
        await self._stub.Settle(pb.SettleRequest(hold_id=hold_id, event=event), metadata=self._metadata, timeout=30)

    async def close(self) -> None:
        await self._channel.close()


def pgbench(database: Database, script: Path, seconds: float) -> int:
    """Pairs of the peer."""
    command = [str(database.server.programs / "pgbench"), "--no-vacuum", "--protocol=prepared", f"--file={script}"]
    command += [f"--client={CALLERS}", "--jobs=2", f"--time={round(seconds)}", database.dsn]
    variables = {**os.environ, "PGOPTIONS": "-c pagemesh.tenant=peer"}
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=variables, timeout=120)
    found = re.search(r"transactions actually processed: (\d+)", told.stdout)
    assert found is not None, told.stdout
    return int(found[1])


async def taken(run: Callable[[], Awaitable[int]], database: int, service: int) -> Round:
    """One turn."""
    before, begun = _processor(database, service), time.perf_counter()
    pairs = await run()
    seconds = time.perf_counter() - begun
    return Round(pairs, seconds, *(b - a for a, b in zip(before, _processor(database, service), strict=True)))


def _processor(database: int, service: int) -> tuple[float, float, float]:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)  # pgbench is a client that ends
    client = time.process_time() + ended.ru_utime + ended.ru_stime
    return client, tree(psutil.Process(service)), tree(psutil.Process(database))


async def compare(database: Database, target: str, service: int, pki: CertificateAuthority, script: Path) -> None:
    """Takes turns and prints the line."""
    callers = Callers(target, pki)
    await callers.ready()
    await callers.pairs(2)
    ours: list[Round] = []
    peers: list[Round] = []
    sides: list[tuple[list[Round], Callable[[], Awaitable[int]]]] = [
        (ours, lambda: callers.pairs(ROUND_S)),
        (peers, lambda: asyncio.to_thread(pgbench, database, script, ROUND_S)),
    ]
    for at in range(ROUNDS):
        for rounds, run in sides if at % 2 == 0 else reversed(sides):
            rounds.append(await taken(run, database.pid, service))
    await callers.close()
    detail = {
        "callers": CALLERS,
        "pairs_per_s": [round(one.pairs_per_s) for one in ours],
        "pgbench_pairs_per_s": [round(one.pairs_per_s) for one in peers],
        "processor_s_per_1000_pairs": processor_s(ours),
        "pgbench_processor_s_per_1000_pairs": processor_s(peers),
        "cores": os.cpu_count(),
    }
    ratio = statistics.median(a.pairs_per_s / b.pairs_per_s for a, b in zip(ours, peers, strict=True))
    report("reserve_settle", ratio=ratio, goal=GOAL, better="higher", detail=detail)


def processor_s(rounds: Sequence[Round]) -> dict[str, float]:
    """By process, over all rounds."""
    pairs = sum(one.pairs for one in rounds)
    names = ("client", "service", "database")
    return {name: round(1000 * sum(getattr(one, name) for one in rounds) / pairs, 3) for name in names}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pagemesh-bench-") as folder:
        directory = Path(folder)
        pki = CertificateAuthority(directory / "pki")
        pki.ensure(now=dt.datetime.now(dt.UTC))
        script = directory / "pair.sql"
        script.write_text(PLAIN_SQL)
        with postgres(directory) as database, ledger(directory, database.dsn, pki) as (target, service):
            uvloop.run(compare(database, target, service, pki, script))


if __name__ == "__main__":
    main()
