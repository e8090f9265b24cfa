"""Spans, the window of times, the forecast, files of usage, and what is asked wrongly."""

import csv
import io
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.adapters.memory_usage import MemoryPartitions, MemoryRollups
from services.ledger.domain import usage_export
from services.ledger.domain.books import Books
from services.ledger.domain.forecast import forecast
from services.ledger.domain.usage_export import COLUMNS, ExportFormat
from services.ledger.domain.usage_reports import EXPORT_PART, Reports
from services.ledger.domain.usage_spans import DAY, HOUR, Span, split
from services.ledger.domain.usage_upkeep import UsageUpkeep
from services.ledger.domain.usage_values import UNGROUPED, Dimension, ExportedRecord, Grouping
from services.ledger.domain.usage_window import UsageWindow, month_of, months_before
from services.ledger.domain.values import Selection
from services.runtime.errors import InvalidArgument
from tests.unit.ledger.samples import ACME, NOW, FixedClock, Stores, a_record, an_event, open_stores

times = st.datetimes(datetime(2024, 2, 27), datetime(2024, 3, 3), timezones=st.just(UTC))  # noqa: DTZ001


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    async with open_stores("memory", lambda _: "") as opened:
        yield opened


@given(st.none() | times, st.none() | times)
def test_a_span_is_cut_without_a_gap(start: datetime | None, end: datetime | None) -> None:
    if start is not None and end is not None and start >= end:
        return
    spans = split(start, end)
    parts: list[Span] = [*spans.days, *spans.hours, *spans.records]
    for chosen in (parts, [*spans.whole_hours, *spans.records]):
        ordered = sorted(chosen, key=lambda span: (span[0] is not None, span[0] or NOW))
        assert ordered[0][0] == start
        assert ordered[-1][1] == end
        assert all(one[1] == two[0] for one, two in itertools.pairwise(ordered))
    for low, high in spans.records:
        assert low is not None
        assert high is not None
        assert high - low < 2 * HOUR
    assert all(edge is None or edge == edge.replace(hour=0, minute=0, second=0, microsecond=0)
               for span in spans.days for edge in span)  # fmt: skip


def test_the_window_of_times() -> None:
    window = UsageWindow(retention_months=2)
    leap = datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert window.bounds(leap) == (datetime(2023, 12, 1, tzinfo=UTC), leap + timedelta(days=1))
    assert window.drop_before(leap) == datetime(2023, 11, 1, tzinfo=UTC)
    assert UsageWindow(600).bounds(datetime(1990, 1, 1, tzinfo=UTC))[0] == datetime(1970, 1, 1, tzinfo=UTC)
    assert month_of(leap.replace(tzinfo=UTC)) == datetime(2024, 2, 1, tzinfo=UTC)
    assert months_before(datetime(2025, 12, 31, tzinfo=UTC), -1) == datetime(2026, 1, 1, tzinfo=UTC)


async def test_events_out_of_the_window_are_refused_and_those_at_its_ends_are_not(stores: Stores) -> None:
    clock = FixedClock()
    books = Books(
        holds=stores.holds,
        usage=stores.usage,
        prices=stores.prices,
        clock=clock,
        window=UsageWindow(retention_months=3),
    )
    first, last = UsageWindow(3).bounds(NOW)
    inside = [replace(an_event(), occur_time=time) for time in (first, last)]
    assert (await books.record(ACME, inside)).recorded == 2
    for time in (first - timedelta(microseconds=1), last + timedelta(microseconds=1)):
        with pytest.raises(InvalidArgument, match="OCCUR_TIME_OUT_OF_RANGE") as refused:
            await books.record(ACME, [an_event(), replace(an_event(), occur_time=time)])
        assert [f.field for f in refused.value.fields] == ["events[1].occur_time"]
    # The ledger's clock is set back an hour: what was recorded before is known, and new calls are not refused.
    clock.now -= timedelta(hours=1)
    assert (await books.record(ACME, [inside[0], an_event(after_s=3600)])).recorded == 1


def days(costs: list[int], now: datetime) -> dict[datetime, int]:
    """The last days before today, the latest last."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return {today - n * DAY: cost for n, cost in enumerate(reversed(costs), 1)}


def test_a_steady_month_goes_on() -> None:
    now = datetime(2026, 3, 16, tzinfo=UTC)
    told = forecast(now, now - 60 * DAY, days([100] * 28, now))
    assert (told.spent_micros, told.history_days) == (1500, 28)
    assert (told.low_micros, told.expected_micros, told.high_micros) == (3100, 3100, 3100)
    assert told.month_end == datetime(2026, 4, 1, tzinfo=UTC)


def test_one_odd_day_does_not_throw_it_off() -> None:
    now = datetime(2024, 2, 29, 12, tzinfo=UTC)
    usual = forecast(now, now - 60 * DAY, days([100] * 28, now))
    odd = forecast(now, now - 60 * DAY, {**days([100] * 28, now), datetime(2024, 2, 10, tzinfo=UTC): 10**9})
    assert odd.expected_micros is not None
    assert usual.expected_micros == 2800 + 50
    assert odd.expected_micros - odd.spent_micros == 50


def test_with_little_history_nothing_is_expected() -> None:
    now = datetime(2026, 3, 16, 12, tzinfo=UTC)
    for first in (None, now, now - 7 * DAY):
        told = forecast(now, first, days([100] * 7, now))
        assert (told.expected_micros, told.low_micros, told.high_micros) == (None, None, None)
    assert forecast(now, datetime(2026, 3, 9, tzinfo=UTC), days([100] * 7, now)).history_days == 7


@given(st.lists(st.integers(0, 10**12), min_size=28, max_size=28), times)
def test_estimates_are_in_order(costs: list[int], now: datetime) -> None:
    told = forecast(now, now - 60 * DAY, days(costs, now))
    assert told.low_micros is not None
    assert told.expected_micros is not None
    assert told.high_micros is not None
    assert told.spent_micros <= told.low_micros <= told.expected_micros <= told.high_micros


HOSTILE = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", 'a"b', "a,b", "line\nbreak", "ü ✂"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_field_is_a_formula(text: str) -> None:
    record = a_record(an_event(request_id=text, tags={"note": text}))
    lines = usage_export.first_line(ExportFormat.CSV) + b"".join(
        usage_export.pieces([ExportedRecord(record, "")], ExportFormat.CSV)
    )
    ((*names,), row) = csv.reader(io.StringIO(lines.decode(), newline=""))
    assert names == list(COLUMNS)
    told = dict(zip(names, row, strict=True))
    assert told["request_id"] == (f"'{text}" if text[0] in "=+-@\t\r\n" else text)
    assert json.loads(told["tags"]) == {"note": text}
    assert told["occur_time"] == "2026-03-01T12:00:00.000000Z"


@pytest.mark.parametrize("text", HOSTILE)
def test_each_line_is_an_object(text: str) -> None:
    exported = ExportedRecord(a_record(an_event(request_id=text, tags={"note": text})), "users/a")
    assert usage_export.first_line(ExportFormat.NDJSON) == b""
    (piece,) = usage_export.pieces([exported, exported], ExportFormat.NDJSON)
    first, second = piece.splitlines()
    assert first == second
    told = json.loads(first)
    assert list(told) == list(COLUMNS)
    assert (told["request_id"], told["tags"], told["user"], told["cost_micros"]) == (
        text,
        {"note": text},
        "users/a",
        900,
    )


def test_pieces_are_bounded() -> None:
    exported = [ExportedRecord(a_record(an_event(tags={"note": "x" * 256})), "") for _ in range(3000)]
    pieces = list(usage_export.pieces(exported, ExportFormat.CSV))
    assert len(pieces) > 3
    assert all(len(piece) < usage_export.PIECE_BYTES + 2000 for piece in pieces)
    assert all(piece.endswith(b"\r\n") for piece in pieces)


async def test_an_export_is_read_in_parts(stores: Stores) -> None:
    records = [a_record(an_event(after_s=n)) for n in range(EXPORT_PART + 1)]
    await stores.usage.record(records)
    parts = [part async for part in Reports(usage=stores.reports, clock=FixedClock()).export(Selection("acme"))]
    assert [len(part) for part in parts] == [EXPORT_PART, 1]
    assert [exported.record for part in parts for exported in part] == records


@pytest.mark.parametrize(
    ("selection", "grouping", "field"),
    [
        (Selection("acme"), Grouping((Dimension.TAG,)), "group_tag"),
        (Selection("acme"), Grouping((Dimension.DAY,), tag="team"), "group_tag"),
        (Selection("acme"), Grouping((Dimension.TAG, Dimension.JOB), tag="team"), "group_by"),
        (Selection("acme", job="jobs/1"), Grouping((Dimension.TAG,), tag="team"), "group_by"),
        (Selection("acme", tag=("note", "x")), Grouping((Dimension.TAG,), tag="team"), "group_by"),
        (Selection("acme", job="jobs/1", tag=("note", "x")), UNGROUPED, "group_by"),
        (Selection("acme", tag=("note", "a\0b")), UNGROUPED, "tag.value"),
        (Selection("acme", model="a\0b"), UNGROUPED, "model"),
    ],
    ids=["no-tag", "tag-alone", "tag-and-job", "tag-of-job", "two-tags", "job-and-tag", "nul-tag", "nul-model"],
)
async def test_questions_that_no_rollup_answers(
    stores: Stores, selection: Selection, grouping: Grouping, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await Reports(usage=stores.reports, clock=FixedClock()).report(selection, grouping, 0, "")
    assert [f.field for f in refused.value.fields] == [field]


async def test_groups_are_told_once(stores: Stores) -> None:
    await stores.usage.record([a_record(an_event(after_s=n)) for n in range(3)])
    reports = Reports(usage=stores.reports, clock=FixedClock())
    grouping = Grouping((Dimension.DAY,))
    first, token = await reports.report(Selection("acme"), grouping, 2, "")
    rest, _ = await reports.report(Selection("acme"), grouping, 2, token)
    assert (len(first.groups), len(rest.groups)) == (1, 0)


async def test_months_come_and_go(stores: Stores) -> None:
    clock, partitions = FixedClock(datetime(2025, 11, 30, tzinfo=UTC)), MemoryPartitions()
    upkeep = UsageUpkeep(rollups=MemoryRollups(), partitions=partitions, window=UsageWindow(2), clock=clock)
    assert await upkeep.prepare_months() == 4
    assert await upkeep.prepare_months() == 0
    assert max(partitions.months) == datetime(2026, 2, 1, tzinfo=UTC)
    clock.now = datetime(2026, 2, 28, tzinfo=UTC)
    assert await upkeep.drop_months() == 0
    clock.now = datetime(2026, 3, 1, tzinfo=UTC)
    assert await upkeep.drop_months() == 1
    assert await upkeep.fold() == 0
