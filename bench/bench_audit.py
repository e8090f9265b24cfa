"""What the chain costs: events chained in batches of 500, against the same rows into the same table without a chain.

The peer is one INSERT a batch into a table with the same columns, partitions and indexes, over the same connections:
no lock, no look-up of known ids, no head, no hashes. Both are durable, and take turns. Also told, without a goal: what
the concern adds to a call's own way through the interceptor, and how many records a second the offline proof reads.
"""

import asyncio
import functools
import secrets
import tempfile
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from bench.report import alternate_p50_us, report
from pagemesh.summarizer.v1 import summarizer_service_pb2
from pagemesh_cli.audit_chain import verify
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.postgres import PostgresServer
from pagemesh_cli.stack.process import Process
from services.audit.concern import audited
from services.audit.trail import Trail
from services.database.migrate import migrate
from services.database.pool import Pool, open_pool
from services.ledger.adapters import postgres_audit
from services.ledger.adapters.postgres_audit import PostgresAudit
from services.ledger.api import audit_mapping
from services.ledger.domain.audit import AuditEvent, AuditRecord
from services.ledger.domain.audit_chain import extend, genesis
from services.runtime.interceptor import MeshInterceptor, _to_unary
from services.runtime.middleware import Policy, in_order

ROUNDS = 40
BATCH = 500
GOAL = 0.5
CALLS = 2000
_ROOT = Path(__file__).parent.parent
_SUMMARIZE = "pagemesh.summarizer.v1.SummarizerService/Summarize"


def some_events() -> list[AuditEvent]:
    now = datetime.now(UTC)
    return [
        AuditEvent(
            event_id=uuid.uuid4(),
            tenant="acme",
            occur_time=now,
            action=_SUMMARIZE,
            request_id=str(uuid.uuid4()),
            actor=f"apiKeys/{n % 20:016}",
            client="ab" * 16,
            resource=f"documents/{n % 300:032x}",
            duration_micros=1234,
        )
        for n in range(BATCH)
    ]


async def plainly(pool: Pool, statement: str) -> None:
    """The same rows with hashes that are none."""
    now, nothing = datetime.now(UTC), b"\0" * 32
    records = [AuditRecord(event, place, now, nothing, nothing) for place, event in enumerate(some_events(), start=1)]
    async with pool.connection() as connection:
        await connection.execute(statement.encode(), postgres_audit._arrays(records))


async def chain(store: PostgresAudit) -> None:
    await store.append("acme", some_events(), datetime.now(UTC))


async def chained_against_plain(pool: Pool) -> list[float]:
    """Median microseconds of a batch, plain and chained."""
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE ledger.plain (LIKE ledger.audit_events INCLUDING ALL)")
        await connection.execute("ALTER TABLE ledger.plain DROP CONSTRAINT plain_pkey")
        await connection.execute("CREATE INDEX ON ledger.plain (tenant, sequence, record_time)")
    statement = postgres_audit._INSERT.as_string(None).replace("ledger.audit_events", "ledger.plain")
    store = PostgresAudit(pool)
    return await alternate_p50_us(ROUNDS, functools.partial(plainly, pool, statement), functools.partial(chain, store))


class _Context:
    """As much of a call as the concerns look at."""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_spiffe_id": [b"spiffe://pagemesh.local/service/edge"]}

    def time_remaining(self) -> float:
        return 30.0


class _Details:
    method = f"/{_SUMMARIZE}"
    invocation_metadata = (
        ("x-pagemesh-tenant", "acme"),
        ("x-pagemesh-actor", "apiKeys/k"),
        ("x-pagemesh-scopes", "summaries.create"),
        ("x-pagemesh-client", "ab" * 16),
        ("x-request-id", "request-1234"),
    )


async def concern_us() -> float:
    """Processor time that the concern adds to one call, with what the trail does before it writes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))

    async def nowhere(events: Sequence[object]) -> None: ...

    async def answer(_: object, __: object) -> object:
        return summarizer_service_pb2.SummarizeResponse()

    trail = Trail(nowhere, max_waiting=10**9)
    request = summarizer_service_pb2.SummarizeRequest(document="documents/" + "0" * 32)
    least = []
    for concerns in (in_order(), in_order(audited(trail, reads=frozenset({_SUMMARIZE})))):
        interceptor = MeshInterceptor(Policy("pagemesh.local", frozenset({"edge"})), concerns)
        handle = _to_unary(answer, functools.partial(interceptor._enter, _Details()))  # type: ignore[arg-type]
        times = []
        for _ in range(10):
            begun = time.process_time()
            for _ in range(CALLS // 10):
                await handle(request, _Context())
            times.append((time.process_time() - begun) / (CALLS // 10))
        least.append(min(times))
    return (least[1] - least[0]) * 1e6


def proof_rows_s() -> float:
    """Records that the offline proof reads in a second."""
    records = extend(genesis("acme"), [event for _ in range(20) for event in some_events()], datetime.now(UTC))
    lines = [audit_mapping.begin_line("acme", genesis("acme"), partial=False)]
    lines += [*map(audit_mapping.record_line, records), audit_mapping.head_line(records[-1].head)]
    begun = time.perf_counter()
    verify(lines)
    return len(records) / (time.perf_counter() - begun)


async def measure(dsn: str) -> dict[str, Any]:
    pool = await open_pool(dsn, name="bench", max_size=2)
    plain_us, chained_us = await chained_against_plain(pool)
    await pool.close()
    return {
        "plain_rows_s": round(BATCH / plain_us * 1e6),
        "chained_rows_s": round(BATCH / chained_us * 1e6),
        "ratio": plain_us / chained_us,
        "concern_us": round(await concern_us(), 1),
        "proof_rows_s": round(proof_rows_s()),
    }


def main() -> None:
    """Starts a database of its own, and prints the line."""
    with tempfile.TemporaryDirectory(prefix="pm-bench-") as directory:
        root = Path(directory)
        passwords = {name: secrets.token_hex(8) for name in ("extractor", "summarizer", "ledger")}
        server = PostgresServer(
            directory=root / "pg", port=pick_free_port(), password=secrets.token_hex(8), log=root / "pg.log"
        )
        server.initialise()
        process = Process(server.spec())
        try:
            process.wait_ready(server.check, timeout_s=30)
            server.ensure_database("pagemesh")
            server.apply_roles(_ROOT / "deploy" / "postgres" / "roles.sql", passwords, database="pagemesh")
            dsn = server.dsn("ledger", passwords["ledger"], database="pagemesh")
            migrate(dsn, directory=_ROOT / "services" / "ledger" / "migrations", schema="ledger")
            found = asyncio.run(measure(dsn))
        finally:
            process.stop()
            server.close()
    report("audit_chain", ratio=found.pop("ratio"), goal=GOAL, better="higher", detail=found)


if __name__ == "__main__":
    main()
