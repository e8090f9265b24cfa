"""Events kept column by column are the events that came."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from pagemesh.ledger.v1 import usage_pb2
from services.ledger.adapters.memory_prices import MemoryPrices
from services.ledger.api.event_batch import batch_of
from services.ledger.api.mapping import event_of, timestamp_of
from services.ledger.domain.books import Books
from services.ledger.domain.pricing import Price, cost_micros, costs_micros
from services.ledger.domain.usage_batch import EventBatch, RecordBatch, micros_of, time_of
from services.ledger.domain.values import Tokens
from services.runtime.errors import InvalidArgument
from tests.unit.ledger.samples import ACME, BOOK, NOW, FixedClock, a_record, an_event, open_stores

_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799
_TEXT = st.text(max_size=6)
_TAGS = st.dictionaries(st.sampled_from(["team", "cost", "x"]), _TEXT, max_size=3)
_TOKENS = st.integers(0, 10**9)
_MESSAGES = st.builds(
    usage_pb2.UsageEvent,
    event_id=st.builds(lambda each, upper: str(each).upper() if upper else str(each), st.uuids(), st.booleans()),
    model=_TEXT,
    input_tokens=_TOKENS,
    output_tokens=_TOKENS,
    operation=_TEXT,
    document=_TEXT,
    request_id=_TEXT,
    occur_time=st.builds(Timestamp, seconds=st.integers(_FIRST_S, _LAST_S), nanos=st.integers(0, 999_999_999)),
    tags=_TAGS,
    job=_TEXT,
)


@given(st.lists(_MESSAGES, min_size=1, max_size=8))
def test_columns_are_the_events_one_by_one(messages: list[usage_pb2.UsageEvent]) -> None:
    batch = batch_of(messages)
    events = [event_of(message, "") for message in messages]
    assert list(batch) == events
    assert list(EventBatch.of(events)) == events
    assert EventBatch.of(batch) is batch
    assert len(batch) == len(events)
    assert events[-1] in batch
    assert an_event() not in batch


def test_equal_tags_are_one_mapping() -> None:
    tags = [{"team": "blue"}, {"team": "red"}, {"team": "blue"}, {}]
    time = timestamp_of(NOW)
    found = batch_of([usage_pb2.UsageEvent(event_id=str(uuid.uuid4()), tags=t, occur_time=time) for t in tags]).tags
    assert list(found) == tags
    assert found[0] is found[2]


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(0, -1), (0, 10**9), (_FIRST_S - 1, 0), (_LAST_S + 1, 0), (2**62, 0), (-(2**62), 0)]
)
def test_what_is_no_time_is_named(seconds: int, nanos: int) -> None:
    good = usage_pb2.UsageEvent(event_id=str(uuid.uuid4()), occur_time=Timestamp(seconds=1))
    bad = usage_pb2.UsageEvent(event_id=str(uuid.uuid4()), occur_time=Timestamp(seconds=seconds, nanos=nanos))
    with pytest.raises(InvalidArgument) as told:
        batch_of([good, bad])
    assert told.value.fields[0].field == "events[1].occur_time"


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_is_whole_microseconds(time: datetime) -> None:
    assert time_of(micros_of(time)) == time
    assert timestamp_of(time).ToMicroseconds() == micros_of(time)


def test_records_are_those_they_were_made_of() -> None:
    records = [replace(a_record(an_event(after_s=n), cost_micros=n), project="projects/p") for n in range(3)]
    batch = RecordBatch.of(records)
    assert list(batch) == records
    assert records[2] in batch
    assert RecordBatch.of(batch) is batch


@given(st.lists(st.tuples(st.builds(Price, _TOKENS, _TOKENS), _TOKENS, _TOKENS), max_size=5))
def test_many_calls_cost_what_each_costs(calls: list[tuple[Price, int, int]]) -> None:
    each = [cost_micros(price, Tokens(sent, received)) for price, sent, received in calls]
    assert costs_micros([c[0] for c in calls], [c[1] for c in calls], [c[2] for c in calls]) == each


@pytest.mark.parametrize("place", ["request_id", "tags[team]"])
async def test_a_text_that_cannot_be_kept_is_found_in_a_long_batch(place: str) -> None:
    bad = an_event(request_id="a\0") if place == "request_id" else an_event(tags={"team": "\0"})
    async with open_stores("memory", lambda _: "") as stores:
        books = Books(holds=stores.holds, usage=stores.usage, prices=MemoryPrices({1: BOOK}), clock=FixedClock())
        with pytest.raises(InvalidArgument) as told:
            await books.record(ACME, [an_event(tags={"team": "blue"}), an_event(), bad, an_event()])
    assert told.value.fields[0].field == f"events[2].{place}"
