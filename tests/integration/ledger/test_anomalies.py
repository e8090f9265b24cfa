"""A day that costs far more than usual: seen by real replicas, told by real webhooks."""

import asyncio
import re
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.integration.ledger.conftest import Admit, Connect, LedgerProcess, eventually
from tests.integration.ledger.desks import Desk, open_desk
from tests.integration.ledger.receivers import open_receiver
from tests.integration.ledger.test_money import event

DOLLAR_TOKENS = 50_000_000
"""What a dollar buys of the model that `event` names."""
_DAY_S = 86_400


@pytest.fixture
def replicas(ledger_dsn: str, mesh_pki: CertificateAuthority, session_dir: Path) -> Iterator[list[LedgerProcess]]:
    """Two, which look all the time."""
    started = [
        LedgerProcess(ledger_dsn, mesh_pki, session_dir / f"ledger-anomaly-{n}.log", PAGEMESH_ANOMALY_INTERVAL_S="0.05")
        for n in range(2)
    ]
    try:
        for process in started:
            process.start()
        yield started
    finally:
        for process in started:
            process.stop()


async def spend(desk: Desk, dollars: int, *days_ago: int) -> None:
    events = [event(tokens=dollars * DOLLAR_TOKENS, seconds=int(time.time()) - days * _DAY_S) for days in days_ago]
    await desk.summarizer.call(desk.summarizer.ledger.RecordUsage, pb.RecordUsageRequest(events=events))


def counted(replicas: list[LedgerProcess]) -> int:
    """Anomalies in the metrics of all replicas."""
    total = 0
    for process in replicas:
        with urllib.request.urlopen(f"http://127.0.0.1:{process.http_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        total += int(float(re.findall(r"^pagemesh_ledger_cost_anomalies_total (\S+)$", text, re.MULTILINE)[0]))
    return total


async def test_an_anomaly_is_told_once_by_two_replicas(
    replicas: list[LedgerProcess], connect: Connect, admit: Admit, ledger_dsn: str
) -> None:
    newcomer, dear, quiet, last = [await open_desk(replicas[n % 2], connect, admit) for n in range(4)]
    async with open_receiver() as receiver, open_receiver() as elsewhere:
        hooks = {
            desk.edge.tenant: await desk.call(
                "CreateWebhook", pb.CreateWebhookRequest(url=f"http://127.0.0.1:{port}/hook")
            )
            for desk, port in ((dear, receiver.port), (newcomer, elsewhere.port), (quiet, elsewhere.port))
        }
        await spend(newcomer, 1, 0, 1, 2, 3, 4, 5)
        await spend(newcomer, 10, 0)
        await spend(quiet, 1, *range(10), 0, 0)
        await spend(dear, 1, *range(1, 10))
        day = datetime.now(UTC).date()
        await spend(dear, 4, 0)

        async def told() -> bool:
            return bool(receiver.got)

        await eventually(told, within_s=60)
        # It goes on, and so do the rounds: the one that finds the next tenant's day finds this one again.
        await spend(dear, 9, 0)
        await spend(last, 1, 10)
        await spend(last, 2, 0)

        async def next_counted() -> bool:
            return await asyncio.to_thread(counted, replicas) >= 2

        await eventually(next_counted, within_s=60)
        (message,) = receiver.told(hooks[dear.edge.tenant].secret)
        assert message["type"] == "cost.anomaly_detected"
        data = message["data"]
        assert (data["tenant"], data["currency"]) == (f"tenants/{dear.edge.tenant}", "USD")
        assert abs(datetime.fromisoformat(data["day"]).date() - day).days <= 1  # it may be midnight meanwhile
        assert [data[f"{name}_micros"] for name in ("cost", "usual", "factor", "threshold")] == [
            4_000_000,
            1_000_000,
            4_000_000,
            3_000_000,
        ]
        assert elsewhere.got == []
    assert counted(replicas) == 2
    with psycopg.connect(ledger_dsn) as connection:
        for desk, kept in ((newcomer, 0), (dear, 1), (quiet, 0), (last, 1)):
            connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (desk.edge.tenant,))
            rows = connection.execute("SELECT count(*) FROM ledger.cost_anomalies").fetchall()
            assert rows == [(kept,)], desk.edge.tenant
