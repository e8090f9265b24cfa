"""RecordUsage while the ledger and PostgreSQL are killed: what the reports say is what the clients know."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1 import usage_group_pb2, usage_pb2
from pagemesh.ledger.v1.usage_group_pb2 import UsageGroup
from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.integration.ledger.conftest import Connect, LedgerProcess, Peer, eventually
from tests.integration.ledger.test_crashes import (  # the fixture is used by its name
    Journal,
    OwnPostgres,
    bootstrap,
    own_postgres,
    until_acknowledged,
)
from tests.integration.ledger.test_money import event

__all__ = ["own_postgres"]

_DAY_S = 86_400
_NOW_S = 1_770_000_000


@dataclass
class Written:
    """What was acknowledged, by event id."""

    events: dict[str, usage_pb2.UsageEvent] = field(default_factory=dict)
    replays: Journal = field(default_factory=Journal)


def late_event(chance: random.Random) -> usage_pb2.UsageEvent:
    """Of any of the last ninety days: late, and in no order."""
    return event(
        tokens=chance.randrange(1, 10) * 50_000,
        seconds=_NOW_S - chance.randrange(90) * _DAY_S - chance.randrange(_DAY_S),
        job=f"jobs/{chance.randrange(3)}",
        tags={"team": chance.choice(["blue", "red"])},
    )


async def write(peer: Peer, batches: int, seed: int, written: Written) -> None:
    """Batches of ten; every third one brings events of the one before once more."""
    chance, before = random.Random(seed), list[usage_pb2.UsageEvent]()
    for number in range(batches):
        events = [late_event(chance) for _ in range(10)] + (before[:5] if number % 3 == 2 else [])
        request = pb.RecordUsageRequest(events=events)
        await until_acknowledged(peer, peer.ledger.RecordUsage, request, written.replays)
        written.events.update({e.event_id: e for e in events})
        before = events


async def check_reports(peer: Peer, written: Written) -> None:
    """Sums by day, by job and by tag, the total and the list are those of the journal."""
    wanted = written.events.values()
    questions: tuple[tuple[str, Callable[[UsageGroup], object], Callable[[usage_pb2.UsageEvent], object]], ...] = (
        ("DAY", lambda g: g.day.seconds // _DAY_S, lambda e: e.occur_time.seconds // _DAY_S),
        ("JOB", lambda g: g.job, lambda e: e.job),
        ("TAG", lambda g: g.tag, lambda e: e.tags["team"]),
    )
    for name, told, key in questions:
        dimension = usage_group_pb2.UsageDimension.Value(f"USAGE_DIMENSION_{name}")
        request = pb.QueryUsageRequest(group_by=[dimension], group_tag="team" if name == "TAG" else "")
        report = await peer.usage(request)
        costs: Counter[object] = Counter()
        for each in wanted:
            costs[key(each)] += each.input_tokens // 50
        assert {told(g): g.cost.micros for g in report.groups} == dict(costs), name
        assert (report.total_records, report.total_cost.micros) == (len(wanted), sum(costs.values()))
    seen, token = [], ""
    while True:
        page = await peer.usage(pb.QueryUsageRequest(page_size=500, page_token=token))
        seen += [record.event.event_id for record in page.records]
        if not (token := page.next_page_token):
            break
    assert sorted(seen) == sorted(written.events)


async def test_killed_again_and_again_the_reports_equal_the_journal(
    own_postgres: OwnPostgres,  # the fixture
    mesh_pki: CertificateAuthority,
    session_dir: Path,
    connect: Connect,
) -> None:
    await bootstrap(own_postgres.dsn)
    service = LedgerProcess(
        own_postgres.dsn, mesh_pki, session_dir / "ledger-usage.log", PAGEMESH_USAGE_INTERVAL_S="0.01"
    )
    service.start()
    written = Written()
    try:
        peers = [connect(service, "summarizer", "acme") for _ in range(4)]
        workers = [asyncio.create_task(write(peer, 40, seed, written)) for seed, peer in enumerate(peers)]

        async def reached(count: int) -> bool:
            for worker in workers:
                if worker.done():
                    worker.result()
            return len(written.events) >= count

        for count, killed in ((200, service), (500, own_postgres), (800, service), (1100, own_postgres)):
            await eventually(lambda count=count: reached(count), within_s=120)  # type: ignore[misc]
            # In a thread, so that calls go on meanwhile.
            await asyncio.to_thread(killed.kill)
            killed.start()
        async with asyncio.timeout(180):
            await asyncio.gather(*workers)
        assert written.replays.replayed > 0
        assert len(written.events) == 1600
        await check_reports(peers[0], written)
        service.kill()  # in the middle of a fold, as likely as not
        service.start()
        await check_reports(peers[0], written)
    except grpc.aio.AioRpcError as exc:
        raise AssertionError(exc.details()) from exc
    finally:
        service.stop()
