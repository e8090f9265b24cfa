"""LedgerService over real mTLS and real Postgres."""

import asyncio
import uuid

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pagemesh.ledger.v1 import hold_pb2, usage_pb2
from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from tests.integration.ledger.conftest import Admit, Connect, LedgerProcess, Peer, eventually, refused

MODEL = "offline/lexrank"
DOCUMENT = "documents/" + "a" * 32
Code = grpc.StatusCode


def reserve(hold_id: str = "", *, tokens: int = 50_000, model: str = MODEL, ttl_s: int = 60) -> pb.ReserveRequest:
    return pb.ReserveRequest(
        hold_id=hold_id or str(uuid.uuid4()),
        model=model,
        max_input_tokens=tokens,
        max_output_tokens=0,
        ttl=Duration(seconds=ttl_s),
    )


def event(
    *, event_id: str = "", tokens: int = 50_000, seconds: int = 1_700_000_000, model: str = MODEL, **fields: object
) -> usage_pb2.UsageEvent:
    return usage_pb2.UsageEvent(
        event_id=event_id or str(uuid.uuid4()),
        model=model,
        input_tokens=tokens,
        operation="summarize.map",
        occur_time=Timestamp(seconds=seconds, nanos=123_456_789),
        **fields,  # type: ignore[arg-type]
    )


@pytest.fixture
async def tenant(admit: Admit) -> str:
    return (await admit()).name


@pytest.fixture
def summarizer(service: LedgerProcess, connect: Connect, tenant: str) -> Peer:
    return connect(service, "summarizer", tenant)


async def test_a_call_from_reservation_to_report(summarizer: Peer) -> None:
    asked = reserve()
    held = (await summarizer.call(summarizer.ledger.Reserve, asked)).hold
    assert (held.state, held.amount.currency, held.amount.micros) == (hold_pb2.HOLD_STATE_HELD, "USD", 1000)
    assert (held.model, held.price_book_version) == (MODEL, 4)
    assert held.expire_time.ToMicroseconds() - held.create_time.ToMicroseconds() == 60_000_000
    told = event(tokens=25_001, document=DOCUMENT, request_id="request-1", tags={"team": "blue"})
    answer = await summarizer.call(summarizer.ledger.Settle, pb.SettleRequest(hold_id=asked.hold_id, event=told))
    assert answer.hold.state == hold_pb2.HOLD_STATE_SETTLED
    assert answer.record.cost.micros == 501
    assert (answer.record.hold_id, answer.record.actor) == (asked.hold_id, summarizer.actor)
    told.occur_time.nanos = 123_456_000  # whole microseconds are kept
    assert answer.record.event == told
    report = await summarizer.usage(pb.QueryUsageRequest())
    assert list(report.records) == [answer.record]
    assert (report.total_cost.micros, report.total_records, report.held.micros) == (501, 1, 0)


async def test_each_call_may_be_made_again(summarizer: Peer) -> None:
    asked, told = reserve(), event()
    settle = pb.SettleRequest(hold_id=asked.hold_id, event=told)
    record = pb.RecordUsageRequest(events=[event(), event()])
    held = [await summarizer.call(summarizer.ledger.Reserve, asked) for _ in range(2)]
    settled = [await summarizer.call(summarizer.ledger.Settle, settle) for _ in range(2)]
    recorded = [await summarizer.call(summarizer.ledger.RecordUsage, record) for _ in range(2)]
    assert held[0] == held[1]
    assert settled[0] == settled[1]
    assert [(r.recorded, r.already_known) for r in recorded] == [(2, 0), (0, 2)]
    again = await summarizer.call(summarizer.ledger.Reserve, asked)
    assert again.hold.state == hold_pb2.HOLD_STATE_SETTLED
    free = reserve()
    await summarizer.call(summarizer.ledger.Reserve, free)
    release = pb.ReleaseRequest(hold_id=free.hold_id)
    released = [await summarizer.call(summarizer.ledger.Release, release) for _ in range(2)]
    assert released[0] == released[1]
    assert released[0].hold.state == hold_pb2.HOLD_STATE_RELEASED
    report = await summarizer.usage(pb.QueryUsageRequest())
    assert (report.total_records, report.held.micros) == (3, 0)


async def test_ids_are_for_one_call(summarizer: Peer) -> None:
    asked, told = reserve(), event()
    await summarizer.call(summarizer.ledger.Reserve, asked)
    async with refused(Code.ALREADY_EXISTS, "HOLD_ID_REUSED"):
        await summarizer.call(summarizer.ledger.Reserve, reserve(asked.hold_id, tokens=1))
    await summarizer.call(summarizer.ledger.Settle, pb.SettleRequest(hold_id=asked.hold_id, event=told))
    async with refused(Code.FAILED_PRECONDITION, "HOLD_ALREADY_SETTLED"):
        await summarizer.call(summarizer.ledger.Settle, pb.SettleRequest(hold_id=asked.hold_id, event=event()))
    async with refused(Code.FAILED_PRECONDITION, "HOLD_ALREADY_SETTLED"):
        await summarizer.call(summarizer.ledger.Release, pb.ReleaseRequest(hold_id=asked.hold_id))
    changed = event(event_id=told.event_id, tokens=1)
    async with refused(Code.ALREADY_EXISTS, "EVENT_ID_REUSED"):
        await summarizer.call(summarizer.ledger.RecordUsage, pb.RecordUsageRequest(events=[event(), changed]))
    report = await summarizer.usage(pb.QueryUsageRequest())
    assert report.total_records == 1


async def test_a_released_hold_is_not_settled(summarizer: Peer) -> None:
    asked = reserve()
    await summarizer.call(summarizer.ledger.Reserve, asked)
    await summarizer.call(summarizer.ledger.Release, pb.ReleaseRequest(hold_id=asked.hold_id))
    async with refused(Code.FAILED_PRECONDITION, "HOLD_RELEASED"):
        await summarizer.call(summarizer.ledger.Settle, pb.SettleRequest(hold_id=asked.hold_id, event=event()))


async def test_what_has_no_price_is_refused(summarizer: Peer) -> None:
    async with refused(Code.FAILED_PRECONDITION, "MODEL_UNPRICED"):
        await summarizer.call(summarizer.ledger.Reserve, reserve(model="nobody/knows"))
    asked = reserve()
    await summarizer.call(summarizer.ledger.Reserve, asked)
    async with refused(Code.FAILED_PRECONDITION, "MODEL_UNPRICED"):
        settle = pb.SettleRequest(hold_id=asked.hold_id, event=event(model="nobody/knows"))
        await summarizer.call(summarizer.ledger.Settle, settle)
    async with refused(Code.FAILED_PRECONDITION, "MODEL_UNPRICED"):
        events = [event(), event(model="nobody/knows")]
        await summarizer.call(summarizer.ledger.RecordUsage, pb.RecordUsageRequest(events=events))
    report = await summarizer.usage(pb.QueryUsageRequest())
    assert (report.total_records, report.held.micros) == (0, 1000)


async def test_sixty_four_reservers_and_room_for_ten(service: LedgerProcess, connect: Connect, admit: Admit) -> None:
    tenant = await admit(hard_budget_micros=10_999)
    peers = [connect(service, "summarizer", tenant.name) for _ in range(4)]
    calls = [peer.call(peer.ledger.Reserve, reserve(), 60) for peer in peers for _ in range(16)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    failed = [r for r in results if isinstance(r, BaseException)]
    assert {r.code() for r in failed if isinstance(r, grpc.aio.AioRpcError)} == {Code.RESOURCE_EXHAUSTED}
    assert len(failed) == 54
    report = await peers[0].usage(pb.QueryUsageRequest())
    assert report.held.micros == 10_000


async def test_a_full_budget_is_told_with_its_owner(service: LedgerProcess, connect: Connect, admit: Admit) -> None:
    tenant = await admit(hard_budget_micros=999)
    peer = connect(service, "summarizer", tenant.name)
    async with refused(Code.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED") as told:
        await peer.call(peer.ledger.Reserve, reserve())
    assert told.quota == "budgets/operator"
    await admit(name=tenant.name, hard_budget_micros=1000)
    await peer.call(peer.ledger.Reserve, reserve())


async def test_a_hold_that_runs_out_counts_until_it_is_settled(
    service: LedgerProcess, connect: Connect, admit: Admit
) -> None:
    peer = connect(service, "summarizer", (await admit(hard_budget_micros=1000)).name)
    asked = reserve(ttl_s=1)
    await peer.call(peer.ledger.Reserve, asked)

    async def unknown() -> bool:
        hold = (await peer.call(peer.ledger.Reserve, asked)).hold
        return bool(hold.state == hold_pb2.HOLD_STATE_UNKNOWN)

    await eventually(unknown)
    async with refused(Code.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED"):
        await peer.call(peer.ledger.Reserve, reserve())
    settle = pb.SettleRequest(hold_id=asked.hold_id, event=event(tokens=0))
    assert (await peer.call(peer.ledger.Settle, settle)).hold.state == hold_pb2.HOLD_STATE_SETTLED
    await peer.call(peer.ledger.Reserve, reserve())


async def test_another_tenants_ids_are_not_found(service: LedgerProcess, connect: Connect, admit: Admit) -> None:
    mine = connect(service, "summarizer", (await admit()).name)
    theirs = connect(service, "summarizer", (await admit()).name)
    asked = reserve()
    await mine.call(mine.ledger.Reserve, asked)
    async with refused(Code.NOT_FOUND, "HOLD_NOT_FOUND"):
        await theirs.call(theirs.ledger.Settle, pb.SettleRequest(hold_id=asked.hold_id, event=event()))
    async with refused(Code.NOT_FOUND, "HOLD_NOT_FOUND"):
        await theirs.call(theirs.ledger.Release, pb.ReleaseRequest(hold_id=asked.hold_id))
    own = await theirs.call(theirs.ledger.Reserve, reserve(asked.hold_id, tokens=7))
    assert own.hold.amount.micros == 1
    told = event(document=DOCUMENT)
    await mine.call(mine.ledger.Settle, pb.SettleRequest(hold_id=asked.hold_id, event=told))
    report = await theirs.usage(pb.QueryUsageRequest(document=DOCUMENT))
    assert (report.total_records, len(report.records)) == (0, 0)


async def test_pages_and_their_tokens(summarizer: Peer) -> None:
    events = [event(seconds=1_700_000_000 + n // 3, request_id=f"r-{n % 2}") for n in range(10)]
    await summarizer.call(summarizer.ledger.RecordUsage, pb.RecordUsageRequest(events=events))
    seen, token = [], ""
    while True:
        request = pb.QueryUsageRequest(page_size=4, page_token=token)
        part = await summarizer.usage(request)
        assert (part.total_records, part.total_cost.micros) == (10, 10_000)
        seen += [record.event.event_id for record in part.records]
        if not (token := part.next_page_token):
            break
        other = pb.QueryUsageRequest(page_size=4, page_token=token, request_id="r-1")
        async with refused(Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN") as told:
            await summarizer.usage(other)
        assert told.fields == ["page_token"]
    assert sorted(seen) == sorted(e.event_id for e in events)


@pytest.mark.parametrize("text", ["'; DROP TABLE ledger.holds; --", "\\'", "%s", "{}", '" OR 1=1 --', "ü ✂"])
async def test_texts_are_data(summarizer: Peer, text: str) -> None:
    told = event(request_id=text, tags={"note": text})
    await summarizer.call(summarizer.ledger.RecordUsage, pb.RecordUsageRequest(events=[told]))
    report = await summarizer.usage(pb.QueryUsageRequest(request_id=text))
    assert [record.event.tags["note"] for record in report.records] == [text]
    async with refused(Code.FAILED_PRECONDITION, "MODEL_UNPRICED"):
        await summarizer.call(summarizer.ledger.Reserve, reserve(model=f"x/{text}"))
    async with refused(Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await summarizer.usage(pb.QueryUsageRequest(page_token=text))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ReserveRequest(hold_id="x", model=MODEL, ttl=Duration(seconds=1)), "hold_id"),
        (reserve(tokens=-1), "max_input_tokens"),
        (reserve(ttl_s=0), "ttl"),
        (reserve(ttl_s=86_401), "ttl"),
        (pb.SettleRequest(hold_id=str(uuid.uuid4())), "event"),
        (pb.RecordUsageRequest(), "events"),
        (pb.RecordUsageRequest(events=[event(request_id="a\0b")]), "events[0].request_id"),
        (pb.RecordUsageRequest(events=[event(seconds=10**12)]), "events[0].occur_time"),
        (pb.QueryUsageRequest(page_size=1001), "page_size"),
        (pb.QueryUsageRequest(request_id="\0"), "request_id"),
        (pb.QueryUsageRequest(start_time=Timestamp(seconds=10**12)), "start_time"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_field_out_of_bounds_is_named(summarizer: Peer, request_: object, field: str) -> None:
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD") as told:
        if isinstance(request_, pb.QueryUsageRequest):
            await summarizer.usage(request_)
        else:
            method = type(request_).__name__.removesuffix("Request")
            await summarizer.call(getattr(summarizer.ledger, method), request_)
    assert told.fields == [field]


@pytest.mark.parametrize("seconds", [-1, 1_300_000_000, 4_000_000_000], ids=["before-1970", "past-retention", "ahead"])
async def test_a_time_that_no_month_is_kept_for_is_named(summarizer: Peer, seconds: int) -> None:
    async with refused(Code.INVALID_ARGUMENT, "OCCUR_TIME_OUT_OF_RANGE") as told:
        request = pb.RecordUsageRequest(events=[event(), event(seconds=seconds)])
        await summarizer.call(summarizer.ledger.RecordUsage, request)
    assert told.fields == ["events[1].occur_time"]
    asked = reserve()
    await summarizer.call(summarizer.ledger.Reserve, asked)
    async with refused(Code.INVALID_ARGUMENT, "OCCUR_TIME_OUT_OF_RANGE") as told:
        settle = pb.SettleRequest(hold_id=asked.hold_id, event=event(seconds=seconds))
        await summarizer.call(summarizer.ledger.Settle, settle)
    assert told.fields == ["event.occur_time"]


@pytest.mark.parametrize("peer", ["extractor", "edge", "operator"])
@pytest.mark.parametrize("method", ["Reserve", "Settle", "Release", "RecordUsage"])
async def test_only_the_summarizer_moves_money(
    service: LedgerProcess, connect: Connect, peer: str, method: str, tenant: str
) -> None:
    stranger = connect(service, peer, tenant)
    request = getattr(pb, f"{method}Request")()
    async with refused(Code.PERMISSION_DENIED, "METHOD_NOT_ALLOWED"):
        await stranger.call(getattr(stranger.ledger, method), request)


async def test_a_tenant_that_does_not_exist_holds_nothing(service: LedgerProcess, connect: Connect) -> None:
    nobody = connect(service, "summarizer", "nobody-ever")
    async with refused(Code.FAILED_PRECONDITION, "TENANT_UNKNOWN"):
        await nobody.call(nobody.ledger.Reserve, reserve())
    async with refused(Code.FAILED_PRECONDITION, "TENANT_UNKNOWN"):
        await nobody.call(nobody.ledger.RecordUsage, pb.RecordUsageRequest(events=[event()]))


async def test_usage_needs_its_scope_at_the_edge(service: LedgerProcess, connect: Connect, tenant: str) -> None:
    poor = connect(service, "edge", tenant, scopes="documents.read")
    async with refused(Code.PERMISSION_DENIED, "SCOPE_MISSING"):
        await poor.usage(pb.QueryUsageRequest())
    rich = connect(service, "edge", tenant, scopes="usage.read")
    await rich.usage(pb.QueryUsageRequest())
