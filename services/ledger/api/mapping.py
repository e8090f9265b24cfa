"""Messages of the contract to values of the domain and back. Messages were held against the contract before."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pagemesh.common.v1 import money_pb2
from pagemesh.ledger.v1 import hold_pb2, usage_pb2
from services.ledger.domain.checks import invalid_field
from services.ledger.domain.usage_batch import micros_of
from services.ledger.domain.values import (
    CURRENCY,
    Caller,
    Hold,
    HoldState,
    Tokens,
    UsageEvent,
    UsageRecord,
)
from services.runtime.call import current_identity

_STATES = {
    HoldState.HELD: hold_pb2.HOLD_STATE_HELD,
    HoldState.SETTLED: hold_pb2.HOLD_STATE_SETTLED,
    HoldState.RELEASED: hold_pb2.HOLD_STATE_RELEASED,
    HoldState.UNKNOWN: hold_pb2.HOLD_STATE_UNKNOWN,
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NANOS = 1_000_000_000
FIRST_TIME = datetime.min.replace(tzinfo=UTC)
LAST_TIME = datetime.max.replace(tzinfo=UTC)
_NO_TIME = "is not a time between the years 1 and 9999"


def caller() -> Caller:
    """Who calls. Raises Unauthenticated where nobody is named."""
    identity = current_identity()
    return Caller(identity.tenant, identity.actor, identity.scopes, identity.project)


SESSION_HEADER = "x-pagemesh-session"
"""How Check says that a call is made in a session; the edge lets no client say so."""


def told(context: Any, header: str) -> str:
    """What Check, or the edge, says of the call under that name; empty where nothing is said."""
    return str(dict(context.invocation_metadata() or ()).get(header, ""))


def session(context: Any) -> str:
    """The session, `sessions/{id}`, that the call is made in; empty for none."""
    return told(context, SESSION_HEADER)


def money(micros: int) -> money_pb2.Money:
    """An amount in the ledger's currency."""
    return money_pb2.Money(currency=CURRENCY, micros=micros)


def time_of(timestamp: Timestamp, path: str) -> datetime:
    """UTC, cut to whole microseconds. Raises InvalidArgument for what is no time of the years 1 to 9999."""
    nanos = timestamp.nanos
    try:
        time = _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=nanos // 1000)
    except OverflowError as exc:
        raise invalid_field(path, _NO_TIME) from exc
    if not 0 <= nanos < NANOS:
        raise invalid_field(path, _NO_TIME)
    return time


def timestamp_of(time: datetime) -> Timestamp:
    """The same moment."""
    seconds, micros = divmod(micros_of(time), 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


def ttl_of(duration: Duration) -> timedelta:
    """The same length, cut to whole microseconds."""
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)


def hold_message(hold: Hold) -> hold_pb2.Hold:
    """A hold as callers see it."""
    return hold_pb2.Hold(
        hold_id=str(hold.hold_id),
        state=_STATES[hold.state],
        model=hold.model,
        amount=money(hold.amount_micros),
        price_book_version=hold.price_book_version,
        create_time=timestamp_of(hold.create_time),
        expire_time=timestamp_of(hold.expire_time),
        project=hold.project,
        job=hold.job,
    )


def event_of(message: usage_pb2.UsageEvent, path: str) -> UsageEvent:
    """What a caller reports; `path` is where it stands in the request."""
    return UsageEvent(
        event_id=UUID(message.event_id),
        model=message.model,
        tokens=Tokens(message.input_tokens, message.output_tokens),
        operation=message.operation,
        document=message.document,
        request_id=message.request_id,
        occur_time=time_of(message.occur_time, f"{path}.occur_time"),
        tags=dict(message.tags),
        job=message.job,
    )


def record_message(record: UsageRecord) -> usage_pb2.UsageRecord:
    """A record as callers see it."""
    event = record.event
    return usage_pb2.UsageRecord(
        event=usage_pb2.UsageEvent(
            event_id=str(event.event_id),
            model=event.model,
            input_tokens=event.tokens.sent,
            output_tokens=event.tokens.received,
            operation=event.operation,
            document=event.document,
            request_id=event.request_id,
            occur_time=timestamp_of(event.occur_time),
            tags=event.tags,
            job=event.job,
        ),
        cost=money(record.cost_micros),
        price_book_version=record.price_book_version,
        hold_id="" if record.hold_id is None else str(record.hold_id),
        actor=record.actor,
        record_time=timestamp_of(record.record_time),
        project=record.project,
    )
