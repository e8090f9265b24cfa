"""QueryUsage by day over many records against the same question over 100,000.

Thirty days of two tenants, filled by the database itself; the rollups are up to date, as they are a second after the
last record. The question goes to a real ledger process behind mTLS: the groups of the thirty days, their total and the
newest fifty records. BENCH_ROWS is the number of records of the larger tenant (10,000,000).
"""

import asyncio
import os
from datetime import UTC, datetime, timedelta

import psycopg

from bench.own_ledger import TENANT, OwnLedger, own_ledger
from bench.report import alternate_p50_us, report
from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1 import usage_group_pb2
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub

GOAL = 1.5
ROUNDS = 30
DAYS = 30
ROWS = int(os.environ.get("BENCH_ROWS", "10000000"))
SMALL_ROWS = 100_000
SMALL = "small"
# Four models, twenty keys in five projects, a job for a thousand calls.
_FILL = """
    INSERT INTO ledger.usage_records (
        tenant, event_id, model, input_tokens, output_tokens, operation, document, request_id, occur_time, tags,
        cost_micros, price_book_version, actor, record_time, project, job, user_name
    )
    SELECT %(tenant)s, gen_random_uuid(), 'bench/model-' || n %% 4, n %% 5000, n %% 300, 'summarize.map', '',
           'request-' || n / 20, %(day)s + n * (interval '1 day' / %(rows)s), '{"team": "blue"}', n %% 1000, 1,
           'apiKeys/' || lpad((n %% 20)::text, 16, '0'), now(), 'projects/p' || n %% 5, 'jobs/j' || n / 1000, ''
    FROM generate_series(0, %(rows)s - 1) n
"""


def fill(connection: psycopg.Connection[tuple[object, ...]], tenant: str, rows: int, begin: datetime) -> None:
    """A day in each transaction."""
    connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (tenant,))
    for day in range(DAYS):
        time = begin + timedelta(days=day)
        connection.execute("SELECT ledger.make_usage_partition(%s)", (time,))
        connection.execute(_FILL, {"tenant": tenant, "day": time, "rows": rows // DAYS})
        connection.commit()


async def folded(ledger: OwnLedger) -> None:
    """Waits until the ledger has moved every sum into the rollups, which takes it a moment."""
    with ledger.database() as connection:
        connection.autocommit = True
        connection.execute("SELECT set_config('pagemesh.across', 'usage_rollups', false)")
        while connection.execute("SELECT EXISTS (SELECT FROM ledger.usage_deltas)").fetchone() == (True,):
            await asyncio.sleep(0.2)
        connection.execute("VACUUM ANALYZE ledger.usage_deltas, ledger.usage_rollups, ledger.usage_records")


async def main() -> None:
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS)
    with own_ledger() as ledger:
        with ledger.database() as connection:
            connection.execute("SET statement_timeout = 0")
            fill(connection, SMALL, SMALL_ROWS, begin)
            fill(connection, TENANT, ROWS, begin)
        await folded(ledger)
        request = pb.QueryUsageRequest(group_by=[usage_group_pb2.USAGE_DIMENSION_DAY])
        request.start_time.FromDatetime(begin)
        request.end_time.FromDatetime(begin + timedelta(days=DAYS))
        async with ledger.channel("edge") as channel:
            stub = LedgerServiceStub(channel)

            async def ask(tenant: str) -> pb.QueryUsageResponse:
                metadata = (("x-pagemesh-tenant", tenant), ("x-pagemesh-scopes", "usage.read"))
                return await stub.QueryUsage(request, metadata=metadata, timeout=60)

            answer = await ask(TENANT)
            if (answer.total_records, len(answer.groups)) != (ROWS // DAYS * DAYS, DAYS):
                raise RuntimeError(f"{answer.total_records} records in {len(answer.groups)} days")
            small, large = await alternate_p50_us(ROUNDS, lambda: ask(SMALL), lambda: ask(TENANT))
    detail = {"rows": ROWS, "ms": round(large / 1000, 2), "small_rows": SMALL_ROWS, "small_ms": round(small / 1000, 2)}
    report("query_usage", ratio=large / small, goal=GOAL, better="lower", detail=detail)


if __name__ == "__main__":
    asyncio.run(main())
