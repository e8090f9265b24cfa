"""Events that are recorded together, kept column by column: an object for each of five hundred costs the process more
than the database takes to keep them. Whoever asks gets them one by one all the same."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.ledger.domain.values import Tokens, UsageEvent, UsageRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, eq=False)
class EventBatch(Collection[UsageEvent]):
    """The columns of UsageEvent, all of one length: ids as 16 bytes each, times in microseconds since 1970 (UTC).

    Events with equal tags may share one mapping, which saves whoever reads them the same work again.
    """

    event_ids: Sequence[bytes]
    models: Sequence[str]
    sent: Sequence[int]
    received: Sequence[int]
    operations: Sequence[str]
    documents: Sequence[str]
    request_ids: Sequence[str]
    occur_micros: Sequence[int]
    tags: Sequence[Mapping[str, str]]
    jobs: Sequence[str]

    @classmethod
    def of(cls, events: Collection[UsageEvent]) -> "EventBatch":
        """The same events in the same order."""
        if isinstance(events, EventBatch):
            return events
        return cls(
            event_ids=[e.event_id.bytes for e in events],
            models=[e.model for e in events],
            sent=[e.tokens.sent for e in events],
            received=[e.tokens.received for e in events],
            operations=[e.operation for e in events],
            documents=[e.document for e in events],
            request_ids=[e.request_id for e in events],
            occur_micros=[micros_of(e.occur_time) for e in events],
            tags=[e.tags for e in events],
            jobs=[e.job for e in events],
        )

    def __len__(self) -> int:
        return len(self.event_ids)

    def __iter__(self) -> Iterator[UsageEvent]:
        return map(self.event, range(len(self)))

    def __contains__(self, event: object) -> bool:
        return any(event == each for each in self)

    def event(self, index: int) -> UsageEvent:
        """One of them."""
        return UsageEvent(
            event_id=UUID(bytes=self.event_ids[index]),
            model=self.models[index],
            tokens=Tokens(self.sent[index], self.received[index]),
            operation=self.operations[index],
            document=self.documents[index],
            request_id=self.request_ids[index],
            occur_time=time_of(self.occur_micros[index]),
            tags=self.tags[index],
            job=self.jobs[index],
        )


@dataclass(frozen=True, slots=True, eq=False)
class RecordBatch(Collection[UsageRecord]):
    """What events without holds cost one caller at one time, by one version of the price book."""

    tenant: str
    events: EventBatch
    costs_micros: Sequence[int]
    price_book_version: int
    actor: str
    record_time: datetime
    project: str

    @classmethod
    def of(cls, records: Collection[UsageRecord]) -> "RecordBatch":
        """Records that differ in nothing but their events and costs; at least one."""
        if isinstance(records, RecordBatch):
            return records
        first = next(iter(records))
        return cls(
            tenant=first.tenant,
            events=EventBatch.of([r.event for r in records]),
            costs_micros=[r.cost_micros for r in records],
            price_book_version=first.price_book_version,
            actor=first.actor,
            record_time=first.record_time,
            project=first.project,
        )

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[UsageRecord]:
        for event, cost in zip(self.events, self.costs_micros, strict=True):
            yield UsageRecord(
                tenant=self.tenant,
                event=event,
                cost_micros=cost,
                price_book_version=self.price_book_version,
                hold_id=None,
                actor=self.actor,
                record_time=self.record_time,
                project=self.project,
            )

    def __contains__(self, record: object) -> bool:
        return any(record == each for each in self)


def micros_of(time: datetime) -> int:
    """Whole microseconds since 1970, cut."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(micros: int) -> datetime:
    """The same moment, in UTC. OverflowError out of the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=micros)
