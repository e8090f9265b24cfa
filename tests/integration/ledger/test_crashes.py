"""What is true after processes were killed: nothing lost, nothing twice, no money gone astray."""

import asyncio
import contextlib
import json
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psycopg
import pytest

from pagemesh.ledger.v1 import budget_pb2
from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.postgres import PostgresServer
from pagemesh_cli.stack.process import Process
from services.database.migrate import migrate
from tests.conftest import _ROLES
from tests.integration.ledger.conftest import (
    ROOT,
    Admit,
    Connect,
    LedgerProcess,
    Peer,
    environment,
    eventually,
    refused,
    run_command,
)
from tests.integration.ledger.desks import DAY, usd
from tests.integration.ledger.test_access import check, passes
from tests.integration.ledger.test_money import event, reserve

Code = grpc.StatusCode
TRANSIENT = {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED}


@dataclass
class Journal:
    """What a client knows: which calls it made, and which of them were acknowledged."""

    settled: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    replayed: int = 0


async def until_acknowledged(peer: Peer, method: object, request: object, journal: Journal) -> object:
    """Sends the same request until it is answered, as any client may."""
    while True:
        try:
            return await peer.call(method, request, timeout_s=5)  # type: ignore[arg-type]
        except grpc.aio.AioRpcError as exc:
            if exc.code() not in TRANSIENT:
                raise
            journal.replayed += 1
            await asyncio.sleep(0.05)


async def spend(peer: Peer, calls: int, journal: Journal, *, job: str = "") -> None:
    """Reserve, then Settle or, every fourth time, Release."""
    for number in range(calls):
        asked, told = reserve(), event(tokens=25_000, job=job)
        asked.job = job
        await until_acknowledged(peer, peer.ledger.Reserve, asked, journal)
        if number % 4 == 3:
            request: object = pb.ReleaseRequest(hold_id=asked.hold_id)
            await until_acknowledged(peer, peer.ledger.Release, request, journal)
            journal.released.add(asked.hold_id)
        else:
            request = pb.SettleRequest(hold_id=asked.hold_id, event=told)
            await until_acknowledged(peer, peer.ledger.Settle, request, journal)
            journal.settled.add(told.event_id)


def check_books(dsn: str, tenant: str, journal: Journal) -> None:
    """The books hold exactly the journal, and the running totals are the sums of the books."""
    of_tenant = "FROM ledger.{} WHERE tenant = %s"
    with psycopg.connect(dsn) as database:
        database.execute("SELECT set_config('pagemesh.tenant', %s, false)", [tenant])
        recorded = f"SELECT event_id::text {of_tenant.format('usage_records')}"
        events = [event_id for (event_id,) in database.execute(recorded.encode(), [tenant])]
        closed = f"SELECT state, count(*) {of_tenant.format('holds')} GROUP BY state"
        states: dict[str, int] = dict(database.execute(closed.encode(), [tenant]).fetchall())
        running = f"SELECT settled_micros, held_micros {of_tenant.format('budget_periods')}"
        totals = database.execute(running.encode(), [tenant]).fetchone()
    assert len(events) == len(set(events))
    assert set(events) == journal.settled
    assert states == {"SETTLED": len(journal.settled), "RELEASED": len(journal.released)}
    assert totals == (500 * len(journal.settled), 0)


async def test_a_ledger_killed_again_and_again_records_each_call_once(
    ledger_dsn: str, mesh_pki: CertificateAuthority, session_dir: Path, connect: Connect, admit: Admit
) -> None:
    tenant = await admit(hard_budget_micros=10**9)
    service = LedgerProcess(ledger_dsn, mesh_pki, session_dir / "ledger-killed.log")
    service.start()
    journal = Journal()
    try:
        workers = [
            asyncio.create_task(spend(connect(service, "summarizer", tenant.name), 24, journal)) for _ in range(8)
        ]
        for acknowledged in (20, 60, 100):

            async def reached(count: int = acknowledged) -> bool:
                for worker in workers:
                    if worker.done():
                        worker.result()
                return len(journal.settled) >= count

            await eventually(reached, within_s=40)
            service.kill()
            service.start()
        await asyncio.gather(*workers)
    finally:
        service.stop()
    assert journal.replayed > 0
    check_books(ledger_dsn, tenant.name, journal)


@dataclass
class OwnPostgres:
    """A database server that a test may stop."""

    server: PostgresServer
    dsn: str
    process: Process | None = None

    def start(self) -> None:
        self.process = Process(self.server.spec())
        self.process.wait_ready(self.server.check, timeout_s=30)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.stop()


@contextlib.contextmanager
def running_postgres(directory: Path) -> Iterator[OwnPostgres]:
    """One with the tables of the ledger."""
    passwords = {name: secrets.token_hex(8) for name in ("extractor", "summarizer", "ledger")}
    server = PostgresServer(
        directory=directory / "pg", port=pick_free_port(), password=secrets.token_hex(8), log=directory / "pg.log"
    )
    server.initialise()
    own = OwnPostgres(server, server.dsn("ledger", passwords["ledger"], database="pagemesh"))
    try:
        own.start()
        server.ensure_database("pagemesh")
        server.apply_roles(_ROLES, passwords, database="pagemesh")
        migrate(own.dsn, directory=ROOT / "services" / "ledger" / "migrations", schema="ledger")
        yield own
    finally:
        own.stop()
        server.close()


@pytest.fixture
def own_postgres(short_dir: Path) -> Iterator[OwnPostgres]:
    with running_postgres(short_dir) as own:
        yield own


@pytest.fixture
async def own_service(
    own_postgres: OwnPostgres, mesh_pki: CertificateAuthority, session_dir: Path
) -> AsyncIterator[LedgerProcess]:
    service = LedgerProcess(own_postgres.dsn, mesh_pki, session_dir / "ledger-own.log")
    service.start()
    yield service
    service.stop()


async def bootstrap(dsn: str, *arguments: str) -> str:
    code, output = await run_command(["bootstrap", "--tenant", "acme", *arguments], environment(dsn))
    assert code == 0, output
    return str(json.loads(output.splitlines()[-1])["secret"])


async def test_postgres_goes_and_comes_back(
    own_postgres: OwnPostgres, own_service: LedgerProcess, connect: Connect
) -> None:
    secret = await bootstrap(own_postgres.dsn)
    edge, summarizer = connect(own_service, "edge", ""), connect(own_service, "summarizer", "acme")
    assert await passes(edge, secret)
    own_postgres.stop()
    async with refused(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
        await summarizer.call(summarizer.ledger.Reserve, reserve())

    async def fails_closed() -> bool:
        """A cached key passes within its short time; then nobody can say, and that is no 401."""
        try:
            return (await check(edge, authorization=f"Bearer {secret}")).HasField("denied_response")
        except grpc.aio.AioRpcError as exc:
            return exc.code() is Code.UNAVAILABLE

    await eventually(fails_closed)
    own_postgres.start()

    async def answers() -> bool:
        try:
            return await passes(edge, secret)
        except grpc.aio.AioRpcError:
            return False

    await eventually(answers, within_s=40)
    asked = reserve()
    await until_acknowledged(summarizer, summarizer.ledger.Reserve, asked, Journal())
    settle = pb.SettleRequest(hold_id=asked.hold_id, event=event())
    await until_acknowledged(summarizer, summarizer.ledger.Settle, settle, Journal())
    report = await summarizer.usage(pb.QueryUsageRequest())
    assert report.total_records == 1


async def test_postgres_killed_amid_calls_keeps_what_was_acknowledged(
    own_postgres: OwnPostgres, own_service: LedgerProcess, connect: Connect
) -> None:
    await bootstrap(own_postgres.dsn, "--hard-budget-micros", str(10**9))
    journal = Journal()
    workers = [asyncio.create_task(spend(connect(own_service, "summarizer", "acme"), 16, journal)) for _ in range(4)]

    async def under_way() -> bool:
        return len(journal.settled) >= 10

    async def one_has_failed() -> bool:
        return journal.replayed > 0

    await eventually(under_way)
    # In a thread, so that calls go on meanwhile: none may be under way in the moment of the kill.
    await asyncio.to_thread(own_postgres.kill)
    await eventually(one_has_failed)
    own_postgres.start()  # dies with the thread that starts it
    async with asyncio.timeout(90):
        await asyncio.gather(*workers)
    check_books(own_postgres.dsn, "acme", journal)


async def test_a_restart_forgets_no_hold(
    ledger_dsn: str, mesh_pki: CertificateAuthority, session_dir: Path, connect: Connect, admit: Admit
) -> None:
    tenant = await admit(hard_budget_micros=1000)
    service = LedgerProcess(ledger_dsn, mesh_pki, session_dir / "ledger-restarted.log")
    service.start()
    try:
        peer = connect(service, "summarizer", tenant.name)
        asked = reserve(str(uuid.uuid4()))
        held = await peer.call(peer.ledger.Reserve, asked)
        service.kill()
        service.start()
        assert await until_acknowledged(peer, peer.ledger.Reserve, asked, Journal()) == held
        async with refused(Code.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED"):
            await peer.call(peer.ledger.Reserve, reserve())
    finally:
        service.stop()


SETTLED_BY_JOB = """
    SELECT job, count(*), sum(cost_micros)::bigint FROM ledger.usage_records WHERE tenant = %s GROUP BY job
"""
TOTALS = """
    SELECT budget, sum(settled_micros)::bigint, sum(held_micros)::bigint FROM ledger.budget_periods
    WHERE tenant = %s GROUP BY budget
"""


async def test_a_killed_ledger_keeps_every_budget_and_tells_each_threshold_once(
    ledger_dsn: str, mesh_pki: CertificateAuthority, session_dir: Path, connect: Connect, admit: Admit
) -> None:
    """Budgets of two jobs, the key and the tenant, a webhook that nobody answers, and a kill every few calls."""
    tenant = await admit(hard_budget_micros=10**9)
    service = LedgerProcess(ledger_dsn, mesh_pki, session_dir / "ledger-killed-budgets.log")
    service.start()
    journal = Journal()
    try:
        edge = connect(service, "edge", tenant.name)
        hook = pb.CreateWebhookRequest(url=f"http://127.0.0.1:{pick_free_port()}/")
        await edge.call(edge.ledger.CreateWebhook, hook)
        subjects = {"one": "jobs/1", "two": "jobs/2", "key": edge.actor, "all": f"tenants/{tenant.name}"}
        for budget_id, subject in subjects.items():
            budget = budget_pb2.Budget(subject=subject, period=DAY, hard_limit=usd(33_000))
            request = pb.CreateBudgetRequest(budget=budget, budget_id=budget_id)
            await edge.call(edge.ledger.CreateBudget, request)
        peers = [connect(service, "summarizer", tenant.name) for _ in range(6)]
        workers = [
            asyncio.create_task(spend(peer, 12, journal, job=f"jobs/{1 + n % 2}")) for n, peer in enumerate(peers)
        ]
        for acknowledged in (8, 20, 32, 44):

            async def reached(count: int = acknowledged) -> bool:
                for worker in workers:
                    if worker.done():
                        worker.result()
                return len(journal.settled) >= count

            await eventually(reached, within_s=60)
            service.kill()
            service.start()
        await asyncio.gather(*workers)
    finally:
        service.stop()
    assert len(journal.settled) == 54
    with psycopg.connect(ledger_dsn) as database:
        database.execute("SELECT set_config('pagemesh.tenant', %s, false)", [tenant.name])
        by_job = {job: (count, cost) for job, count, cost in database.execute(SETTLED_BY_JOB, [tenant.name])}
        totals = {budget: sums for budget, *sums in database.execute(TOTALS, [tenant.name])}
        alerts = database.execute(
            "SELECT budget, percent FROM ledger.budget_alerts WHERE tenant = %s ORDER BY 1, 2", [tenant.name]
        ).fetchall()
        messages = database.execute(
            "SELECT body::jsonb #>> '{data,budget}', (body::jsonb #>> '{data,percent}')::int"
            " FROM ledger.webhook_deliveries WHERE tenant = %s ORDER BY 1, 2",
            [tenant.name],
        ).fetchall()
    assert by_job == {"jobs/1": (27, 13_500), "jobs/2": (27, 13_500)}
    everything = [27_000, 0]
    assert totals == {"one": [13_500, 0], "two": [13_500, 0]} | dict.fromkeys(("key", "all", "operator"), everything)
    assert {("all", 50), ("all", 80), ("key", 50), ("key", 80)} <= set(alerts)
    assert messages == [(f"budgets/{budget}", percent) for budget, percent in alerts]
