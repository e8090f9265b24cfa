"""A group of one tenant's calls that move its money, as one transaction of two round trips.

The first sends everything that finds out: holds are inserted or locked, records kept, the budgets' totals locked. Then
each call is decided in its order, by the totals as the ones before it left them. The second writes what was decided,
together with the commit. Rows are locked in one order everywhere (holds by id, records by event id, totals by rank), so
that replicas cannot wait for each other in a circle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.types.numeric import Int8

from services.database.pool import Pool, translate
from services.ledger.adapters.budget_sheet import BudgetSheet
from services.ledger.adapters.group_commit import GroupFailedError
from services.ledger.adapters.postgres_rows import SHARE_TENANT, TENANT_LOCK, hold_of, record_of, statement
from services.ledger.adapters.postgres_usage_rows import RECORDS_OF_HOLDS
from services.ledger.adapters.settled_records import insert_records
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
    FROM unnest(%(hold_id)s::uuid[], %(model)s::text[], %(sent)s::bigint[], %(received)s::bigint[],
                %(amount)s::bigint[], %(version)s::integer[], %(actor)s::text[], %(created)s::timestamptz[],
                %(expires)s::timestamptz[], %(project)s::text[], %(job)s::text[])
         AS h (hold_id, model, sent, received, amount, version, actor, created, expires, project, job)
    WHERE EXISTS (SELECT FROM ledger.tenants WHERE id = %(tenant)s AND active)
    ON CONFLICT DO NOTHING RETURNING hold_id
""")
_LOCK_HOLDS = statement("""
    SELECT {hold} FROM ledger.holds WHERE tenant = %s AND hold_id = ANY(%s) ORDER BY hold_id FOR UPDATE
""")
_FIND_HOLDS = statement("SELECT {hold} FROM ledger.holds WHERE tenant = %s AND hold_id = ANY(%s)")
_REMOVE_HOLDS = "DELETE FROM ledger.holds WHERE tenant = %s AND hold_id = ANY(%s)"
_CLOSE_HOLDS = """
    UPDATE ledger.holds h SET state = c.state FROM unnest(%s::uuid[], %s::text[]) AS c (hold_id, state)
    WHERE h.tenant = %s AND h.hold_id = c.hold_id
"""


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
    """Those that were there before, as they are now; locked if the move would close them."""
    recorded: set[UUID] = field(default_factory=set)
    records: dict[UUID, UsageRecord] = field(default_factory=dict)
    """Those that settled a hold before, by its id."""
    removed: list[UUID] = field(default_factory=list)
    closed: list[tuple[UUID, HoldState]] = field(default_factory=list)


class MoneyMoves:
    """Runs groups."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def run(self, tenant: str, moves: Sequence[Move]) -> Sequence[Answer | PagemeshError]:
        """One transaction; an answer or a refusal for each move.

        Raises Unavailable where the database is gone, GroupFailedError where a statement failed.
        """
        with translate("move_money"):
            async with self._pool.connection() as connection:
                try:
                    async with connection.pipeline(), connection.transaction():
                        books = await _find_out(connection, tenant, moves)
                        answers = [_decide(books, move) for move in moves]
                        await _write(connection, tenant, books)
                except psycopg.Error as exc:
                    # The server answers, and one statement displeased it: a row that others hold, a value it refuses.
                    if exc.sqlstate is None or exc.sqlstate[:2] in ("08", "57", "25"):
                        raise
                    raise GroupFailedError from exc
        return answers


async def _find_out(connection: Connection, tenant: str, moves: Sequence[Move]) -> _Books:
    reserves = sorted((m.hold for m in moves if isinstance(m, Reserve)), key=lambda hold: hold.hold_id)
    settles = [m for m in moves if isinstance(m, Settle)]
    closing = [m.hold for m in moves if not isinstance(m, Reserve)]
    await connection.execute(SHARE_TENANT, (TENANT_LOCK, tenant))
    locked = inserted = recorded = None
    if closing:
        locked = await connection.execute(_LOCK_HOLDS, (tenant, [hold.hold_id for hold in closing]))
    if reserves:
        inserted = await connection.execute(_INSERT_HOLDS, {"tenant": tenant, **_hold_columns(reserves)})
    if settles:
        recorded = await insert_records(connection, tenant, [m.record for m in settles])
    pending = await BudgetSheet(tenant).lock(
        connection,
        spending=[(subjects_of_hold(hold), hold.create_time) for hold in reserves],
        closing=[(subjects_of_hold(hold), hold.create_time) for hold in closing],
    )
    books = _Books(await pending.read())
    if locked is not None:
        books.holds = {hold.hold_id: hold for hold in map(hold_of, await locked.fetchall())}
    if inserted is not None:
        books.inserted = {hold_id for (hold_id,) in await inserted.fetchall()}
    if recorded is not None:
        books.recorded = {hold_id for (hold_id,) in await recorded.fetchall()}
    await _find_what_was_before(connection, tenant, books, reserves, settles)
    return books


async def _find_what_was_before(
    connection: Connection, tenant: str, books: _Books, reserves: Sequence[Hold], settles: Sequence[Settle]
) -> None:
    """The rare part: what replays are answered with."""
    known = [hold.hold_id for hold in reserves if hold.hold_id not in books.inserted]
    if known:
        found = await connection.execute(_FIND_HOLDS, (tenant, known))
        books.holds |= {hold.hold_id: hold for hold in map(hold_of, await found.fetchall())}
    settled = [m.hold.hold_id for m in settles if m.hold.hold_id not in books.recorded]
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
    if hold.hold_id not in books.recorded:
        raise refusals.event_id_reused()
    books.sheet.close(hold, subjects_of_hold(hold), spent_micros=record.cost_micros, time=record.record_time)
    books.closed.append((hold.hold_id, HoldState.SETTLED))
    return record


def _release(books: _Books, hold: Hold) -> Hold:
    state = _state(books, hold)
    if not state.counts:
        return replace(hold, state=state)
    books.sheet.close(hold, subjects_of_hold(hold), spent_micros=0, time=hold.create_time)
    books.closed.append((hold.hold_id, HoldState.RELEASED))
    return replace(hold, state=HoldState.RELEASED)


def _state(books: _Books, hold: Hold) -> HoldState:
    # A hold that was found before does not go again.
    return books.holds[hold.hold_id].state


async def _write(connection: Connection, tenant: str, books: _Books) -> None:
    """Sent together with the commit."""
    if books.removed:
        await connection.execute(_REMOVE_HOLDS, (tenant, books.removed))
    if books.closed:
        closed, states = zip(*((hold_id, state.value) for hold_id, state in books.closed), strict=True)
        await connection.execute(_CLOSE_HOLDS, (list(closed), list(states), tenant))
    await books.sheet.write(connection)


def _hold_columns(holds: Sequence[Hold]) -> dict[str, Any]:
    return {
        "hold_id": [hold.hold_id for hold in holds],
        "model": [hold.model for hold in holds],
        "sent": [Int8(hold.most.sent) for hold in holds],
        "received": [Int8(hold.most.received) for hold in holds],
        "amount": [Int8(hold.amount_micros) for hold in holds],
        "version": [hold.price_book_version for hold in holds],
        "actor": [hold.actor for hold in holds],
        "created": [hold.create_time for hold in holds],
        "expires": [hold.expire_time for hold in holds],
        "project": [hold.project for hold in holds],
        "job": [hold.job for hold in holds],
    }
