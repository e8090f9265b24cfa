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
from psycopg import AsyncConnection

from services.database.pool import Pool, translate
from services.ledger.adapters.budget_sheet import BudgetSheet, OpenedPeriods
from services.ledger.adapters.group_commit import GroupFailedError
from services.ledger.adapters.postgres_rows import SHARE_TENANT, TENANT_LOCK, hold_of, record_of, statement
from services.ledger.adapters.postgres_usage_rows import RECORDS_OF_HOLDS
from services.ledger.adapters.settled_records import settle_holds
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

_INSERT_HOLDS = statement("""
    INSERT INTO ledger.holds ({hold})
    SELECT %(tenant)s, hold_id, 'HELD', model, sent, received, amount, version, actor, created, expires, project, job
    FROM json_to_recordset(%(holds)s::json) AS h (
        hold_id uuid, model text, sent bigint, received bigint, amount bigint, version integer, actor text,
        created timestamptz, expires timestamptz, project text, job text)
    WHERE EXISTS (SELECT FROM ledger.tenants WHERE id = %(tenant)s AND active)
    ORDER BY hold_id ON CONFLICT DO NOTHING RETURNING hold_id
""")
_LOCK_HOLDS = statement("""
    SELECT hold_id, state FROM ledger.holds WHERE tenant = %s AND hold_id = ANY(%s) ORDER BY hold_id FOR UPDATE
""")
_FIND_HOLDS = statement("SELECT {hold} FROM ledger.holds WHERE tenant = %s AND hold_id = ANY(%s)")
_REMOVE_HOLDS = "DELETE FROM ledger.holds WHERE tenant = %s AND hold_id = ANY(%s)"
_RELEASE_HOLDS = "UPDATE ledger.holds SET state = 'RELEASED' WHERE tenant = %s AND hold_id = ANY(%s)"


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
            async with self._pool.connection() as connection:
                try:
                    # Begun by its first statement and ended by its last: transaction() in a pipeline makes a round
                    # trip of its beginning, of its writes and of its end. What breaks it off is undone by the pool.
                    async with connection.pipeline():
                        books = await _find_out(connection, tenant, moves, self._opened)
                        answers = [_decide(books, move) for move in moves]
                        await _write(connection, tenant, books)
                        await connection.execute("COMMIT", prepare=False)
                except psycopg.Error as exc:
                    # The server answers, and one statement displeased it: a row that others hold, a value it refuses.
                    if exc.sqlstate is None or exc.sqlstate[:2] in ("08", "57", "25"):
                        raise
                    raise GroupFailedError from exc
        for move in moves:
            if isinstance(move, Reserve):
                self._opened.add(tenant, subjects_of_hold(move.hold), move.hold.create_time)
        return answers


async def _find_out(connection: Connection, tenant: str, moves: Sequence[Move], opened: OpenedPeriods) -> _Books:
    reserves = [m.hold for m in moves if isinstance(m, Reserve)]
    settles = [m for m in moves if isinstance(m, Settle)]
    releases = [m.hold for m in moves if isinstance(m, Release)]
    await connection.execute(SHARE_TENANT, (TENANT_LOCK, tenant))
    locked = inserted = settled = None
    if releases:
        locked = await connection.execute(_LOCK_HOLDS, (tenant, [hold.hold_id for hold in releases]))
    if settles:
        settled = await settle_holds(connection, tenant, [m.record for m in settles])
    if reserves:
        holds = json.dumps([_hold_columns(hold) for hold in reserves])
        inserted = await connection.execute(_INSERT_HOLDS, {"tenant": tenant, "holds": holds})
    closing = [*releases, *(m.hold for m in settles)]
    pending = await BudgetSheet(tenant).lock(
        connection,
        spending=[(subjects_of_hold(hold), hold.create_time) for hold in reserves],
        closing=[(subjects_of_hold(hold), hold.create_time) for hold in closing],
        opened=opened,
    )
    books = _Books(await pending.read())
    if locked is not None:
        books.states = {hold_id: HoldState(state) for hold_id, state in await locked.fetchall()}
    if settled is not None:
        for hold_id, state, kept in await settled.fetchall():
            books.states[hold_id] = HoldState(state)
            if kept:
                books.settled.add(hold_id)
    if inserted is not None:
        books.inserted = {hold_id for (hold_id,) in await inserted.fetchall()}
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


async def _write(connection: Connection, tenant: str, books: _Books) -> None:
    """Sent together with the commit."""
    if books.removed:
        await connection.execute(_REMOVE_HOLDS, (tenant, books.removed))
    if books.released:
        await connection.execute(_RELEASE_HOLDS, (tenant, books.released))
    await books.sheet.write(connection)


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
