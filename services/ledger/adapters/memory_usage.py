"""Reports and upkeep of usage in memory: the same promises as the ones in Postgres."""

from collections.abc import Iterable
from datetime import datetime

from services.ledger.adapters.memory import MemoryLedger
from services.ledger.domain import paging
from services.ledger.domain.usage_spans import day_of, hour_of
from services.ledger.domain.usage_values import (
    UNGROUPED,
    Dimension,
    ExportedRecord,
    ExportPart,
    Grouping,
    UsageGroup,
    UsageReport,
)
from services.ledger.domain.usage_window import month_of, months_before
from services.ledger.domain.values import Cursor, Selection, UsageRecord


class MemoryUsageReports:
    """UsageReports."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def report(
        self, selection: Selection, after: Cursor | None, limit: int, grouping: Grouping = UNGROUPED
    ) -> UsageReport:
        chosen = self._chosen(selection)
        rest = [r for r in chosen if after is None or _place(r) < (after.occur_time, after.event_id.bytes)]
        groups = self._groups(chosen, grouping) if grouping.by else []
        return UsageReport(
            records=tuple(rest[:limit]),
            total_cost_micros=sum(r.cost_micros for r in chosen),
            total_records=len(chosen),
            held_micros=self._ledger.held_micros(selection.tenant),
            groups=tuple(groups[: grouping.limit]),
            more_groups=len(groups) > grouping.limit,
        )

    async def groups(self, selection: Selection, grouping: Grouping) -> tuple[UsageGroup, ...]:
        return tuple(self._groups(self._chosen(selection), grouping)[: grouping.limit])

    async def first_hour(self, tenant: str) -> datetime | None:
        return min(
            (hour_of(r.event.occur_time) for r in self._ledger.usage.values() if r.tenant == tenant), default=None
        )

    async def export(self, selection: Selection, after: Cursor | None, limit: int) -> ExportPart:
        chosen = [
            r
            for r in reversed(self._chosen(selection))
            if after is None or _place(r) > (after.occur_time, after.event_id.bytes)
        ]
        part = chosen[:limit]
        last = paging.cursor_of(part[-1]) if len(part) == limit else None
        return ExportPart(tuple(ExportedRecord(r, self._user_of(r)) for r in part), last)

    def _chosen(self, selection: Selection) -> list[UsageRecord]:
        """Newest first."""
        found = [r for r in self._ledger.usage.values() if self._matches(r, selection)]
        return sorted(found, key=_place, reverse=True)

    def _matches(self, record: UsageRecord, selection: Selection) -> bool:
        event = record.event
        key, value = selection.tag
        return (
            record.tenant == selection.tenant
            and (selection.start is None or event.occur_time >= selection.start)
            and (selection.end is None or event.occur_time < selection.end)
            and selection.request_id in ("", event.request_id)
            and selection.document in ("", event.document)
            and selection.model in ("", event.model)
            and selection.project in ("", record.project)
            and selection.actor in ("", record.actor)
            and selection.user in ("", self._user_of(record))
            and selection.operation in ("", event.operation)
            and selection.job in ("", event.job)
            and (not key or event.tags.get(key) == value)
        )

    def _groups(self, records: list[UsageRecord], grouping: Grouping) -> list[UsageGroup]:
        sums: dict[tuple[datetime | str, ...], list[int]] = {}
        for record in records:
            values = tuple(self._value(record, dimension, grouping.tag) for dimension in grouping.by)
            totals = sums.setdefault(values, [0, 0, 0, 0])
            tokens = record.event.tokens
            for index, amount in enumerate((record.cost_micros, 1, tokens.sent, tokens.received)):
                totals[index] += amount
        groups = [UsageGroup(values, *totals) for values, totals in sums.items()]
        by_day = Dimension.DAY in grouping.by and not grouping.top

        def order(group: UsageGroup) -> tuple[object, ...]:
            days = tuple(v for v in group.values if isinstance(v, datetime)) if by_day else ()
            return (days, -group.cost_micros, group.values)

        return sorted(groups, key=order)

    def _value(self, record: UsageRecord, dimension: Dimension, tag: str) -> datetime | str:
        event = record.event
        match dimension:
            case Dimension.DAY:
                return day_of(event.occur_time)
            case Dimension.MODEL:
                return event.model
            case Dimension.TAG:
                return event.tags.get(tag, "")
            case Dimension.API_KEY:
                return record.actor
            case Dimension.PROJECT:
                return record.project
            case Dimension.USER:
                return self._user_of(record)
            case Dimension.JOB:
                return event.job
            case Dimension.OPERATION:
                return event.operation

    def _user_of(self, record: UsageRecord) -> str:
        if record.actor.startswith("users/"):
            return record.actor
        found = self._ledger.keys.get(record.actor.removeprefix("apiKeys/"))
        return f"users/{found[0].user}" if found is not None and found[0].user else ""


class MemoryRollups:
    """Rollups, of which nobody keeps any here."""

    async def fold(self, limit: int) -> int:
        return 0


class MemoryPartitions:
    """Partitions."""

    def __init__(self) -> None:
        self.months: set[datetime] = set()

    async def ensure(self, times: Iterable[datetime]) -> int:
        missing = {month_of(time) for time in times} - self.months
        self.months |= missing
        return len(missing)

    async def drop_one(self, before: datetime) -> bool | None:
        due = [month for month in self.months if months_before(month, -1) <= before]
        if not due:
            return None
        self.months.remove(min(due))
        return True


def _place(record: UsageRecord) -> tuple[datetime, bytes]:
    cursor = paging.cursor_of(record)
    return cursor.occur_time, cursor.event_id.bytes
