"""RecordUsage end to end, durable before its answer, against COPY of the same rows.

The ledger is a real process behind mTLS, called by CALLERS at once; the peer is one psycopg connection that copies the
same rows in the same batches, each committed, into a table with the same indexes. Both share one PostgreSQL, and the
machine. Rounds take turns, and begin with a few batches that are not counted. BENCH_ROWS is the number of rows a round
(10,000).
"""

import asyncio
import json
import os
import statistics
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg

from bench.own_ledger import TENANT, OwnLedger, own_ledger
from bench.report import report
from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from pagemesh.ledger.v1.usage_pb2 import UsageEvent

GOALS = {100: 0.5, 500: 0.75}
ROUNDS = 5
CALLERS = 4
ROWS = int(os.environ.get("BENCH_ROWS", "10000"))
_ACTOR = "apiKeys/" + "0" * 16
_METADATA = (("x-pagemesh-tenant", TENANT), ("x-pagemesh-actor", _ACTOR))
_COPY = """
    COPY ledger.copied (tenant, event_id, model, input_tokens, output_tokens, operation, document, request_id,
                        occur_time, tags, cost_micros, price_book_version, actor, record_time, project, job, user_name)
    FROM STDIN
"""


def batches(size: int, rows: int = ROWS) -> list[pb.RecordUsageRequest]:
    """New events: two models, a job and a document for a hundred of them, and two tags."""
    begun = datetime.now(UTC)
    made = []
    for first in range(0, rows, size):
        request = pb.RecordUsageRequest()
        for number in range(first, min(first + size, rows)):
            event = request.events.add(
                event_id=str(uuid.uuid4()),
                model="offline/lexrank" if number % 3 else "mistral/mistral-small-latest",
                input_tokens=number % 5000,
                output_tokens=number % 300,
                operation="summarize.map",
                document=f"documents/{number // 100:032x}",
                request_id=f"request-{number // 20}",
                job=f"jobs/job-{number // 100}",
                tags={"team": "blue", "environment": "production"},
            )
            event.occur_time.FromDatetime(begun - timedelta(milliseconds=number))
        made.append(request)
    return made


async def recorded(ledger: OwnLedger, requests: Sequence[pb.RecordUsageRequest]) -> float:
    """Rows a second."""
    queue = list(requests)
    async with ledger.channel("summarizer") as channel:
        stub = LedgerServiceStub(channel)

        async def caller() -> None:
            while queue:
                await stub.RecordUsage(queue.pop(), metadata=_METADATA, timeout=60, wait_for_ready=True)

        await channel.channel_ready()
        await asyncio.gather(
            *(stub.RecordUsage(r, metadata=_METADATA, timeout=60) for r in batches(100, CALLERS * 100))
        )
        begun = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return ROWS / (time.perf_counter() - begun)


def copied(connection: psycopg.Connection[tuple[object, ...]], requests: Sequence[pb.RecordUsageRequest]) -> float:
    """Rows a second."""
    now = datetime.now(UTC)
    rows = [[row(event, now) for event in request.events] for request in requests]
    begun = time.perf_counter()
    for batch in rows:
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for values in batch:
                copy.write_row(values)
    return ROWS / (time.perf_counter() - begun)


def row(event: UsageEvent, now: datetime) -> tuple[object, ...]:
    """The event as a row of the peer's table, with an id of its own."""
    used = (event.model, event.input_tokens, event.output_tokens, event.operation, event.document, event.request_id)
    time = event.occur_time.ToDatetime(tzinfo=UTC)
    tags = json.dumps(dict(event.tags))
    return (TENANT, str(uuid.uuid4()), *used, time, tags, 100, 1, _ACTOR, now, "", event.job, "")


def prepare(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """The peer's table: the indexes of a month of records, and those that keep ids unique."""
    (name,) = connection.execute("SELECT name FROM ledger.usage_partitions ORDER BY begin_time LIMIT 1").fetchone() or (
        "",
    )
    connection.execute(f"CREATE TABLE ledger.copied (LIKE ledger.{name} INCLUDING ALL)".encode())
    connection.execute("ALTER TABLE ledger.copied ADD PRIMARY KEY (tenant, event_id)")
    connection.execute("CREATE UNIQUE INDEX ON ledger.copied (tenant, hold_id) WHERE hold_id IS NOT NULL")
    connection.commit()


async def main() -> None:
    with own_ledger() as ledger, ledger.database() as connection:
        prepare(connection)
        for size, goal in GOALS.items():
            ours, theirs = [], []
            for _ in range(ROUNDS):
                requests = batches(size)
                theirs.append(copied(connection, requests))
                ours.append(await recorded(ledger, requests))
            report(
                f"record_usage_{size}",
                ratio=statistics.median(ours) / statistics.median(theirs),
                goal=goal,
                better="higher",
                detail={
                    "rows_per_s": round(statistics.median(ours)),
                    "copy_rows_per_s": round(statistics.median(theirs)),
                    "callers": CALLERS,
                    "rows": ROWS,
                },
            )


if __name__ == "__main__":
    asyncio.run(main())
