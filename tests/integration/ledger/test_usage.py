"""Usage through the service: groups, forecast, files, and the replica that reports are read from."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import psycopg
import pytest

from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1 import usage_group_pb2
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from services.ledger.domain.usage_export import COLUMNS
from tests.conftest import Databases
from tests.integration.ledger.conftest import Admit, Connect, LedgerProcess, Peer, eventually, refused
from tests.integration.ledger.test_money import event, reserve

Code = grpc.StatusCode
DAY, MODEL, TAG, JOB = (
    usage_group_pb2.USAGE_DIMENSION_DAY,
    usage_group_pb2.USAGE_DIMENSION_MODEL,
    usage_group_pb2.USAGE_DIMENSION_TAG,
    usage_group_pb2.USAGE_DIMENSION_JOB,
)


@pytest.fixture
async def summarizer(service: LedgerProcess, connect: Connect, admit: Admit) -> Peer:
    return connect(service, "summarizer", (await admit()).name)


async def record(peer: Peer, *events: object) -> None:
    await peer.call(peer.ledger.RecordUsage, pb.RecordUsageRequest(events=events))  # type: ignore[arg-type]


async def exported(peer: Peer, request: pb.ExportUsageRequest) -> list[pb.ExportUsageResponse]:
    metadata = (("x-pagemesh-tenant", peer.tenant), ("x-pagemesh-scopes", peer.scopes))
    call = LedgerServiceStub(peer.edge).ExportUsage(request, metadata=metadata, timeout=60)
    return [piece async for piece in call]


async def test_settled_and_recorded_calls_are_in_the_same_groups(summarizer: Peer, ledger_dsn: str) -> None:
    """At once, and the same when the task has moved the sums."""
    asked = reserve()
    asked.job = "jobs/1"
    await summarizer.call(summarizer.ledger.Reserve, asked)
    settled = event(tokens=50_000, job="jobs/1", tags={"team": "blue"})
    await summarizer.call(summarizer.ledger.Settle, pb.SettleRequest(hold_id=asked.hold_id, event=settled))
    late = event(tokens=100_000, seconds=settled.occur_time.seconds - 40 * 86_400, tags={"team": "red"})
    await record(summarizer, late, event(tokens=50_000))

    async def check() -> None:
        by_tag = await summarizer.usage(pb.QueryUsageRequest(group_by=[TAG], group_tag="team", page_size=1))
        assert {g.tag: (g.cost.micros, g.records) for g in by_tag.groups} == {
            "blue": (1000, 1),
            "red": (2000, 1),
            "": (1000, 1),
        }
        by_day = await summarizer.usage(pb.QueryUsageRequest(group_by=[DAY, JOB]))
        assert [(g.cost.micros, g.job) for g in by_day.groups] == [(2000, ""), (1000, ""), (1000, "jobs/1")]
        assert by_day.groups[0].day.ToDatetime() == late.occur_time.ToDatetime().replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        only = pb.QueryUsageRequest(filter=usage_group_pb2.UsageFilter(job="jobs/1"), group_by=[MODEL], top=1)
        report = await summarizer.usage(only)
        assert (report.total_records, [r.event.event_id for r in report.records]) == (1, [settled.event_id])
        assert [(g.model, g.records, g.input_tokens) for g in report.groups] == [("offline/lexrank", 1, 50_000)]

    await check()

    async def moved() -> bool:
        with psycopg.connect(ledger_dsn) as connection:
            connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", [summarizer.tenant])
            return connection.execute("SELECT FROM ledger.usage_deltas").fetchone() is None

    await eventually(moved, within_s=60)
    await check()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.QueryUsageRequest(group_by=[TAG]), "group_tag"),
        (pb.QueryUsageRequest(group_by=[TAG, JOB], group_tag="team"), "group_by"),
        (pb.QueryUsageRequest(group_by=[DAY, DAY]), "group_by"),
        (pb.QueryUsageRequest(group_by=[usage_group_pb2.USAGE_DIMENSION_UNSPECIFIED]), "group_by"),
        (pb.QueryUsageRequest(top=1001), "top"),
        (pb.QueryUsageRequest(group_tag="Team"), "group_tag"),
        (pb.QueryUsageRequest(filter=usage_group_pb2.UsageFilter(job="1")), "filter.job"),
        (
            pb.QueryUsageRequest(filter=usage_group_pb2.UsageFilter(tag=usage_group_pb2.UsageTag(key="T"))),
            "filter.tag.key",
        ),
    ],
    ids=["no-tag", "tag-and-job", "twice", "unspecified", "top", "tag-key", "job", "filter-tag"],
)
async def test_a_question_out_of_bounds_is_named(summarizer: Peer, request_: pb.QueryUsageRequest, field: str) -> None:
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD") as told:
        await summarizer.usage(request_)
    assert told.fields == [field]


async def test_a_forecast_needs_a_week(summarizer: Peer) -> None:
    forecast = LedgerServiceStub(summarizer.edge).ForecastUsage
    told = await summarizer.call(forecast, pb.ForecastUsageRequest())
    assert (told.too_little_history, told.history_days, told.HasField("expected")) == (True, 0, False)
    now = datetime.now(UTC)
    noon = now.replace(hour=12)
    days = [event(tokens=50_000, seconds=int((noon - timedelta(days=n)).timestamp())) for n in range(1, 20)]
    await record(summarizer, *days)
    told = await summarizer.call(forecast, pb.ForecastUsageRequest())
    assert (told.too_little_history, told.history_days) == (False, 18)
    assert told.spent.micros <= told.low.micros == told.expected.micros == told.high.micros
    assert told.month_end_time.ToDatetime() > now.replace(tzinfo=None)


async def test_a_file_has_every_record(summarizer: Peer) -> None:
    first = 1_700_000_000
    events = [event(seconds=first + n // 3, request_id=f"=r-{n}", tags={"n": str(n)}) for n in range(1200)]
    for start in range(0, 1200, 400):
        await record(summarizer, *events[start : start + 400])
    pieces = await exported(summarizer, pb.ExportUsageRequest())
    assert pieces[0].content.content_type == "text/csv; charset=utf-8"
    names, *rows = csv.reader(io.StringIO(b"".join(p.content.data for p in pieces).decode(), newline=""))
    assert names == list(COLUMNS)
    assert sorted(row[1] for row in rows) == sorted(e.event_id for e in events)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert {row[names.index("request_id")][:3] for row in rows} == {"'=r"}
    tag = usage_group_pb2.UsageFilter(tag=usage_group_pb2.UsageTag(key="n", value="7"))
    request = pb.ExportUsageRequest(format=pb.ExportUsageRequest.FORMAT_NDJSON, filter=tag)
    pieces = await exported(summarizer, request)
    assert pieces[0].content.content_type == "application/x-ndjson"
    (line,) = b"".join(p.content.data for p in pieces).splitlines()
    assert json.loads(line)["event_id"] == events[7].event_id


async def test_nobody_sees_anothers_usage(summarizer: Peer, service: LedgerProcess, connect: Connect) -> None:
    await record(summarizer, event(job="jobs/1", tags={"team": "blue"}))
    stranger = connect(service, "edge", "tenant-1000000")
    for request in (
        pb.QueryUsageRequest(group_by=[JOB]),
        pb.QueryUsageRequest(filter=usage_group_pb2.UsageFilter(job="jobs/1")),
        pb.QueryUsageRequest(group_by=[TAG], group_tag="team"),
    ):
        report = await stranger.usage(request)
        assert (report.total_records, len(report.groups), len(report.records)) == (0, 0, 0)
    assert b"".join(p.content.data for p in await exported(stranger, pb.ExportUsageRequest())).count(b"\r\n") == 1
    no_scope = connect(service, "edge", summarizer.tenant, scopes="documents.read")
    for method, request_ in (("ForecastUsage", pb.ForecastUsageRequest()), ("QueryUsage", pb.QueryUsageRequest())):
        async with refused(Code.PERMISSION_DENIED, "SCOPE_MISSING"):
            await no_scope.call(getattr(LedgerServiceStub(no_scope.edge), method), request_)
    async with refused(Code.PERMISSION_DENIED, "SCOPE_MISSING"):
        await exported(no_scope, pb.ExportUsageRequest())


async def test_reports_come_from_the_replica_alone(
    postgres_server: Databases,
    ledger_dsn: str,
    *,
    mesh_pki: CertificateAuthority,
    session_dir: Path,
    connect: Connect,
    admit: Admit,
) -> None:
    """Another database stands for a replica that is behind; then for one that is not there at all."""
    tenant = await admit()
    behind = postgres_server.create("ledger")
    gone = ledger_dsn.rsplit(":", 1)[0] + f":{pick_free_port()}/nowhere"
    try:
        for replica in (postgres_server.dsn("ledger", behind), gone):
            service = LedgerProcess(
                ledger_dsn, mesh_pki, session_dir / "ledger-replica.log", PAGEMESH_REPORTS_DATABASE_URL=replica
            )
            service.start()
            try:
                peer = connect(service, "summarizer", tenant.name)
                await record(peer, event())
                if replica is not gone:
                    assert (await peer.usage(pb.QueryUsageRequest())).total_records == 0
                    continue
                async with refused(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
                    await peer.usage(pb.QueryUsageRequest(), timeout_s=60)
                async with refused(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
                    await exported(peer, pb.ExportUsageRequest())
            finally:
                service.stop()
    finally:
        postgres_server.drop(behind)
