"""A group of one tenant's calls that move its money, as one transaction of two round trips.

The first sends everything that finds out: holds are inserted, or locked and closed, records kept, the budgets' totals
locked. Then each call is decided in its order, by the totals as the ones before it left them. The second writes what
was decided, together with the commit. Rows are locked in one order everywhere (holds to close by id, records by event
id, new holds by id, totals by rank), so that no two transactions wait for each other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection

from services.database.pool import Pool, single, translate
from services.ledger.adapters.budget_sheet import BudgetSheet, OpenedPeriods
from services.ledger.adapters.group_commit import GroupFailedError
from services.ledger.adapters.postgres_rows import SHARE_TENANT, TENANT_LOCK, hold_of, record_of, statement
from services.ledger.adapters.postgres_usage_rows import RECORDS_OF_HOLDS
from services.ledger.adapters.settled_records import record_columns
from services.ledger.domain import refusals
from services.ledger.domain.budgets import subjects_of_hold
from services.ledger.domain.values import Hold, HoldState, UsageRecord
from services.runtime.errors import PagemeshError

Connection = AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Reserve:
    """Answers the hold, or the one that had its id."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Settle:
    """Answers the record that settled the hold."""

    hold: Hold
    record: UsageRecord


@dataclass(frozen=True, slots=True)
class Release:
    """Answers the hold as it is then."""

    hold: Hold


Move = Reserve | Settle | Release
Answer = Hold | UsageRecord

_FIND_HOLDS = statement("SELECT {hold} FROM ledger.holds WHERE tenant = %s AND hold_id = ANY(%s)")
# Several statements in one message, which psycopg sends for a cursor that writes the values into them.
_BEGIN = f"BEGIN; {SHARE_TENANT}; SELECT * FROM ledger.begin_moves(%s, %s::uuid[], %s, %s, %s, %s)"  # noqa: S608  # of constants
_END = "SELECT ledger.end_moves(%s, %s::uuid[], %s::uuid[], %s); COMMIT"


def ids(move: Move) -> tuple[object, ...]:
    """What no two moves of one group may have in common."""
    if isinstance(move, Settle):
        return ("hold", move.hold.hold_id), ("event", move.record.event.event_id)
    return (("hold", move.hold.hold_id),)


@dataclass(slots=True)
class _Books:
    """What the first round trip found out, and what is to be written."""

    sheet: BudgetSheet
    inserted: set[UUID] = field(default_factory=set)
    holds: dict[UUID, Hold] = field(default_factory=dict)
    """Those that were to be inserted and were there before."""
    states: dict[UUID, HoldState] = field(default_factory=dict)
    """Of those to close, as they were when they were locked."""
    settled: set[UUID] = field(default_factory=set)
    """Those that are closed by their record now."""
    records: dict[UUID, UsageRecord] = field(default_factory=dict)
    """Those that settled a hold before, by its id."""
    removed: list[UUID] = field(default_factory=list)
    released: list[UUID] = field(default_factory=list)


class MoneyMoves:
    """Runs groups."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._opened = OpenedPeriods()

    async def run(self, tenant: str, moves: Sequence[Move]) -> Sequence[Answer | PagemeshError]:
        """One transaction; an answer or a refusal for each move.

        Raises Unavailable where the database is gone, GroupFailedError where a statement failed.
        """
        with translate("move_money"):
            async with single(self._pool) as connection:
                try:
                    books = await _find_out(connection, tenant, moves, self._opened)
                    answers = [_decide(books, move) for move in moves]
                    await books.sheet.tell(connection)
                    written = tenant, books.removed or None, books.released or None, books.sheet.lines()
                    await AsyncClientCursor(connection).execute(_END, written)
                except psycopg.Error as exc:
                    # The server answers, and one statement displeased it: a row that others hold, a value it refuses.
                    if exc.sqlstate is None or exc.sqlstate[:2] in ("08", "57", "25"):
                        raise
                    await connection.execute("ROLLBACK")
                    raise GroupFailedError from exc
        for move in moves:
            if isinstance(move, Reserve):
                self._opened.add(tenant, subjects_of_hold(move.hold), move.hold.create_time)
        return answers


async def _find_out(connection: Connection, tenant: str, moves: Sequence[Move], opened: OpenedPeriods) -> _Books:
    reserves = [m.hold for m in moves if isinstance(m, Reserve)]
    settles = [m for m in moves if isinstance(m, Settle)]
    releases = [m.hold for m in moves if isinstance(m, Release)]
    sheet = BudgetSheet(tenant)
    new_periods, periods = sheet.periods(
        spending=[(subjects_of_hold(hold), hold.create_time) for hold in reserves],
        closing=[(subjects_of_hold(hold), hold.create_time) for hold in (*releases, *(m.hold for m in settles))],
        opened=opened,
    )
    asked = (
        [hold.hold_id for hold in releases] or None,
        json.dumps([record_columns(m.record) for m in settles]) if settles else None,
        json.dumps([_hold_columns(hold) for hold in reserves]) if reserves else None,
    )
    cursor = AsyncClientCursor(connection)
    await cursor.execute(_BEGIN, (TENANT_LOCK, tenant, tenant, *asked, new_periods, periods))
    while cursor.nextset():  # BEGIN and the lock answer too
        pass
    ((locked, settled, inserted, totals),) = await cursor.fetchall()
    sheet.read(totals)
    books = _Books(sheet, inserted={UUID(hold_id) for hold_id in inserted or ()})
    books.states = {UUID(hold_id): HoldState(state) for hold_id, state in (locked or {}).items()}
    for hold_id, state, kept in settled or ():
        books.states[UUID(hold_id)] = HoldState(state)
        if kept:
            books.settled.add(UUID(hold_id))
    await _find_what_was_before(connection, tenant, books, reserves, settles)
    return books


async def _find_what_was_before(
    connection: Connection, tenant: str, books: _Books, reserves: Sequence[Hold], settles: Sequence[Settle]
) -> None:
    """The rare part: what replays are answered with."""
    known = [hold.hold_id for hold in reserves if hold.hold_id not in books.inserted]
    if known:
        found = await connection.execute(_FIND_HOLDS, (tenant, known))
        books.holds = {hold.hold_id: hold for hold in map(hold_of, await found.fetchall())}
    settled = [m.hold.hold_id for m in settles if m.hold.hold_id not in books.settled]
    if settled:
        found = await connection.execute(RECORDS_OF_HOLDS, {"tenant": tenant, "holds": settled})
        records = map(record_of, await found.fetchall())
        books.records = {record.hold_id: record for record in records if record.hold_id is not None}


def _decide(books: _Books, move: Move) -> Answer | PagemeshError:
    try:
        match move:
            case Reserve():
                return _reserve(books, move.hold)
            case Settle():
                return _settle(books, move.hold, move.record)
            case Release():
                return _release(books, move.hold)
    except PagemeshError as refusal:
        return refusal


def _reserve(books: _Books, hold: Hold) -> Hold:
    if hold.hold_id not in books.inserted:
        known = books.holds.get(hold.hold_id)
        if known is None:
            raise refusals.tenant_unknown()
        return known
    try:
        books.sheet.take(hold, subjects_of_hold(hold))
    except PagemeshError:
        books.removed.append(hold.hold_id)
        raise
    return hold


def _settle(books: _Books, hold: Hold, record: UsageRecord) -> UsageRecord:
    if hold.hold_id in books.records:
        return books.records[hold.hold_id]
    if not _state(books, hold).counts:
        raise refusals.hold_released()
    if hold.hold_id not in books.settled:
        raise refusals.event_id_reused()
    books.sheet.close(hold, subjects_of_hold(hold), spent_micros=record.cost_micros, time=record.record_time)
    return record


def _release(books: _Books, hold: Hold) -> Hold:
    state = _state(books, hold)
    if not state.counts:
        return replace(hold, state=state)
    books.sheet.close(hold, subjects_of_hold(hold), spent_micros=0, time=hold.create_time)
    books.released.append(hold.hold_id)
    return replace(hold, state=HoldState.RELEASED)


def _state(books: _Books, hold: Hold) -> HoldState:
    # Holds stay; but what this process remembers may be of a database that was restored since.
    state = books.states.get(hold.hold_id)
    if state is None:
        raise refusals.hold_not_found()
    return state


def _hold_columns(hold: Hold) -> dict[str, object]:
    return {
        "hold_id": str(hold.hold_id),
        "model": hold.model,
        "sent": hold.most.sent,
        "received": hold.most.received,
        "amount": hold.amount_micros,
        "version": hold.price_book_version,
        "actor": hold.actor,
        "created": hold.create_time.isoformat(),
        "expires": hold.expire_time.isoformat(),
        "project": hold.project,
        "job": hold.job,
    }
