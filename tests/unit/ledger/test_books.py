"""The money use cases over the stores in memory."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from services.ledger.adapters.memory_prices import MemoryPrices
from services.ledger.domain.books import EXPIRE_BATCH, EXPIRE_BATCHES, Books
from services.ledger.domain.pricing import Price, PriceBook
from services.ledger.domain.usage_reports import Reports
from services.ledger.domain.usage_values import UNGROUPED
from services.ledger.domain.values import HoldState, Selection, Tokens
from services.runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from tests.unit.ledger.samples import ACME, BOOK, MODEL, OTHER, FixedClock, Stores, a_hold, an_event, open_stores

TTL = timedelta(seconds=60)
MOST = Tokens(50_000, 0)


@dataclass
class Room:
    books: Books
    reports: Reports
    stores: Stores
    clock: FixedClock
    versions: dict[int, PriceBook]


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with open_stores("memory", lambda _: "") as stores:
        clock, versions = FixedClock(), {1: BOOK}
        books = Books(holds=stores.holds, usage=stores.usage, prices=MemoryPrices(versions), clock=clock)
        yield Room(books, Reports(usage=stores.reports, clock=clock), stores, clock, versions)


async def test_a_hold_is_for_the_highest_price(room: Room) -> None:
    hold = await room.books.reserve(ACME, uuid.uuid4(), MODEL, MOST, TTL)
    assert (hold.amount_micros, hold.price_book_version, hold.state) == (1000, 1, HoldState.HELD)
    assert hold.expire_time - hold.create_time == TTL


async def test_a_replay_answers_the_same_hold_whatever_became_of_it(room: Room) -> None:
    hold_id = uuid.uuid4()
    first = await room.books.reserve(ACME, hold_id, MODEL, MOST, TTL)
    room.clock.now += timedelta(seconds=5)
    assert await room.books.reserve(ACME, hold_id, MODEL, MOST, TTL) == first
    await room.books.release(ACME, hold_id)
    again = await room.books.reserve(ACME, hold_id, MODEL, MOST, TTL)
    assert again == replace(first, state=HoldState.RELEASED)


@pytest.mark.parametrize(
    ("model", "most", "ttl"),
    [
        ("mistral/mistral-large-latest", MOST, TTL),
        (MODEL, Tokens(50_001, 0), TTL),
        (MODEL, Tokens(50_000, 1), TTL),
        (MODEL, MOST, TTL + timedelta(microseconds=1)),
        ("nobody/knows", MOST, TTL),
    ],
)
async def test_a_hold_id_with_other_arguments_is_refused(room: Room, model: str, most: Tokens, ttl: timedelta) -> None:
    hold_id = uuid.uuid4()
    await room.books.reserve(ACME, hold_id, MODEL, MOST, TTL)
    with pytest.raises(AlreadyExists, match="HOLD_ID_REUSED"):
        await room.books.reserve(ACME, hold_id, model, most, ttl)


async def test_a_model_without_a_price_is_never_free(room: Room) -> None:
    with pytest.raises(FailedPrecondition, match="MODEL_UNPRICED"):
        await room.books.reserve(ACME, uuid.uuid4(), "nobody/knows", MOST, TTL)
    with pytest.raises(FailedPrecondition, match="MODEL_UNPRICED"):
        await room.books.record(ACME, [an_event(), replace(an_event(), model="nobody/knows")])
    assert (await room.reports.report(Selection("acme"), UNGROUPED, 0, ""))[0].total_records == 0


async def test_settling_uses_the_prices_of_the_hold(room: Room) -> None:
    hold_id = uuid.uuid4()
    await room.books.reserve(ACME, hold_id, MODEL, MOST, TTL)
    room.versions[2] = PriceBook(2, {MODEL: Price(10**9, 10**9)})
    hold, record = await room.books.settle(ACME, hold_id, an_event(sent=25_000))
    assert (hold.state, record.cost_micros, record.price_book_version) == (HoldState.SETTLED, 500, 1)
    assert (record.hold_id, record.actor, record.record_time) == (hold_id, ACME.actor, room.clock.now)


async def test_a_replay_is_answered_after_its_price_is_gone(room: Room) -> None:
    hold_id = uuid.uuid4()
    first = await room.books.reserve(ACME, hold_id, MODEL, MOST, TTL)
    room.versions[2] = PriceBook(2, {})
    assert await room.books.reserve(ACME, hold_id, MODEL, MOST, TTL) == first


async def test_settling_again_answers_the_same_and_another_event_is_refused(room: Room) -> None:
    hold_id, event = uuid.uuid4(), an_event(tags={"a": "b"})
    await room.books.reserve(ACME, hold_id, MODEL, MOST, TTL)
    first = await room.books.settle(ACME, hold_id, event)
    room.clock.now += timedelta(seconds=5)
    assert await room.books.settle(ACME, hold_id, event) == first
    for other in (an_event(), replace(event, tags={}), replace(event, tokens=Tokens(1, 1))):
        with pytest.raises(FailedPrecondition, match="HOLD_ALREADY_SETTLED"):
            await room.books.settle(ACME, hold_id, other)


async def test_what_is_settled_is_not_released(room: Room) -> None:
    hold_id = uuid.uuid4()
    await room.books.reserve(ACME, hold_id, MODEL, MOST, TTL)
    await room.books.settle(ACME, hold_id, an_event())
    with pytest.raises(FailedPrecondition, match="HOLD_ALREADY_SETTLED"):
        await room.books.release(ACME, hold_id)


async def test_another_tenants_hold_is_not_found(room: Room) -> None:
    hold_id = uuid.uuid4()
    await room.books.reserve(ACME, hold_id, MODEL, MOST, TTL)
    with pytest.raises(NotFound, match="HOLD_NOT_FOUND"):
        await room.books.settle(OTHER, hold_id, an_event())
    with pytest.raises(NotFound, match="HOLD_NOT_FOUND"):
        await room.books.release(OTHER, hold_id)


async def test_an_event_twice_in_one_batch_is_recorded_once(room: Room) -> None:
    event = an_event()
    result = await room.books.record(ACME, [event, an_event(), event])
    assert (result.recorded, result.already_known) == (2, 1)
    result = await room.books.record(ACME, [event, event])
    assert (result.recorded, result.already_known) == (0, 2)


async def test_one_id_with_two_events_in_one_batch_is_refused(room: Room) -> None:
    event = an_event()
    with pytest.raises(AlreadyExists, match="EVENT_ID_REUSED"):
        await room.books.record(ACME, [event, replace(event, tokens=Tokens(1, 1))])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"occur_time": datetime(1969, 12, 31, tzinfo=UTC)}, "events[0].occur_time"),
        ({"occur_time": datetime(9999, 6, 1, tzinfo=UTC)}, "events[0].occur_time"),
        ({"request_id": "a\0b"}, "events[0].request_id"),
        ({"tags": {"team": "\0"}}, "events[0].tags[team]"),
    ],
)
async def test_what_cannot_be_kept_is_named(room: Room, change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await room.books.record(ACME, [replace(an_event(), **change)])  # type: ignore[arg-type]
    assert [f.field for f in refused.value.fields] == [field]


async def test_pages_end_with_an_empty_token(room: Room) -> None:
    await room.books.record(ACME, [an_event(after_s=n) for n in range(5)])
    selection, seen, token = Selection("acme"), [], ""
    for wanted in (2, 2, 1):
        report, token = await room.reports.report(selection, UNGROUPED, 2, token)
        assert len(report.records) == wanted
        assert (report.total_records, report.total_cost_micros) == (5, 5000)
        seen += [r.event.event_id for r in report.records]
    assert token == ""
    assert len(set(seen)) == 5


@pytest.mark.parametrize("token", ["x", "====", "\0", "ä", "A" * 43, "A" * 500, "' OR 1=1 --"])
async def test_a_made_up_token_is_refused(room: Room, token: str) -> None:
    with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
        await room.reports.report(Selection("acme"), UNGROUPED, 2, token)


async def test_a_token_is_for_its_selection(room: Room) -> None:
    await room.books.record(ACME, [an_event(after_s=n) for n in range(3)])
    _, token = await room.reports.report(Selection("acme"), UNGROUPED, 2, "")
    assert token
    for other in (Selection("other"), Selection("acme", request_id="r")):
        with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
            await room.reports.report(other, UNGROUPED, 2, token)


async def test_a_round_of_expiry_is_bounded(room: Room) -> None:
    for _ in range(EXPIRE_BATCH * EXPIRE_BATCHES + 1):
        await room.stores.holds.reserve(a_hold(1, ttl_s=1))
    room.clock.now += timedelta(seconds=1)
    assert await room.books.expire() == EXPIRE_BATCH * EXPIRE_BATCHES
    assert await room.books.expire() == 1
    assert await room.books.held_micros() == EXPIRE_BATCH * EXPIRE_BATCHES + 1
