"""What a tenant used and what it cost: lists, sums by dimensions, a forecast, the whole of it as a file."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

from services.ledger.domain import paging
from services.ledger.domain.checks import check_text, invalid_field
from services.ledger.domain.forecast import TRAILING_DAYS, forecast
from services.ledger.domain.ports import Clock, UsageReports
from services.ledger.domain.usage_spans import DAY, day_of
from services.ledger.domain.usage_values import (
    UNGROUPED,
    Dimension,
    ExportedRecord,
    Forecast,
    Grouping,
    UsageReport,
    facets_of,
)
from services.ledger.domain.usage_window import month_of
from services.ledger.domain.values import Cursor, Selection

DEFAULT_PAGE = 50
EXPORT_PART = 1000
"""Records read at once, and kept in memory."""
_LAST_TIME = datetime(9999, 1, 1, tzinfo=UTC)
"""No record is of a later time, and no hour begins after it that could not be told."""


class Reports:
    """What is asked of the books."""

    def __init__(self, *, usage: UsageReports, clock: Clock) -> None:
        self._usage = usage
        self._clock = clock

    async def report(
        self, selection: Selection, grouping: Grouping, page_size: int, page_token: str
    ) -> tuple[UsageReport, str]:
        """One part of the records, newest first, the sums over all of them, and the token for the next part.

        The token is empty at the end. `page_size` 0 means DEFAULT_PAGE. Groups stand in the first part only.

        Raises InvalidArgument INVALID_PAGE_TOKEN, or INVALID_FIELD for a question that needs two facets.
        """
        chosen = _checked(selection, grouping)
        size = page_size or DEFAULT_PAGE
        after = paging.decode(page_token, selection) if page_token else None
        report = await self._usage.report(chosen, after, size + 1, UNGROUPED if after else grouping)
        if len(report.records) <= size:
            return report, ""
        shown = report.records[:size]
        token = paging.encode(paging.cursor_of(shown[-1]), selection)
        return replace(report, records=shown), token

    async def forecast(self, tenant: str) -> Forecast:
        """What the present month (UTC) will have cost the tenant."""
        now = self._clock()
        begin = min(month_of(now), day_of(now) - TRAILING_DAYS * DAY)
        groups = await self._usage.groups(
            Selection(tenant, start=begin, end=day_of(now) + DAY), Grouping((Dimension.DAY,))
        )
        costs = {group.values[0]: group.cost_micros for group in groups}
        by_day = {day: cost for day, cost in costs.items() if isinstance(day, datetime)}
        return forecast(now, await self._usage.first_hour(tenant), by_day)

    async def export(self, selection: Selection) -> AsyncIterator[tuple[ExportedRecord, ...]]:
        """The records, oldest first, in parts of at most EXPORT_PART; parts may be empty.

        Each part is of its own moment: what is recorded meanwhile is in it where its time is still to come. Raises
        InvalidArgument.
        """
        chosen = _checked(selection, UNGROUPED)
        after: Cursor | None = None
        while True:
            part = await self._usage.export(chosen, after, EXPORT_PART)
            yield part.records
            if part.after is None:
                return
            after = part.after


def _checked(selection: Selection, grouping: Grouping) -> Selection:
    """The selection within the times that records may have."""
    for name, text in (("request_id", selection.request_id), ("tag.value", selection.tag[1])):
        check_text(text, name)
    check_text(selection.model, "model")
    if (Dimension.TAG in grouping.by) != bool(grouping.tag):
        raise invalid_field("group_tag", "must name a tag where groups are by tag, and only there")
    if not (selection.request_id or selection.document) and len(facets_of(selection, grouping)) > 1:
        raise invalid_field(
            "group_by", "can go by jobs or by one tag, and a filter by job or tag must be by the same one"
        )
    start, end = selection.start, selection.end
    return replace(
        selection,
        start=None if start is None else min(start, _LAST_TIME),
        end=None if end is None or end >= _LAST_TIME else end,
    )
