"""The statements that reports are made of: sums out of rollups, the queue and a few records; lists out of records."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import sql

from services.ledger.adapters.postgres_rows import USAGE_COLUMNS
from services.ledger.domain.usage_spans import Span, split
from services.ledger.domain.usage_values import Dimension, Facet, Grouping, facets_of
from services.ledger.domain.values import Cursor, Selection

_COLUMNS = {
    Dimension.DAY: "date_trunc('day', time, 'UTC')",
    Dimension.MODEL: "model",
    Dimension.TAG: "tag",
    Dimension.API_KEY: "actor",
    Dimension.PROJECT: "project",
    Dimension.USER: "user_name",
    Dimension.JOB: "job",
    Dimension.OPERATION: "operation",
}
_DIMENSIONS = "model, project, actor, user_name, operation"
_SUMS = "cost_micros, records, input_tokens, output_tokens"
_NEGATIVE = "-cost_micros, -records, -input_tokens, -output_tokens"


@dataclass
class Question:
    """One selection as conditions. `values` are what the placeholders of every statement made from it stand for."""

    selection: Selection
    grouping: Grouping = field(default_factory=Grouping)
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chosen = self.selection
        self.values["tenant"] = chosen.tenant
        self._alike = [
            f"{column} = %({self._value(wanted)})s"
            for column, wanted in (
                ("model", chosen.model),
                ("project", chosen.project),
                ("actor", chosen.actor),
                ("user_name", chosen.user),
                ("operation", chosen.operation),
            )
            if wanted
        ]

    @property
    def by_record(self) -> bool:
        """Whether the records themselves answer: those of one request or one document are few, and have an index."""
        return bool(self.selection.request_id or self.selection.document)

    @property
    def filtered(self) -> bool:
        """Whether more is asked than an index of the records knows."""
        return bool(self._alike or self.selection.job or self.selection.tag[0])

    def totals(self) -> sql.Composed:
        """Cost and number of the whole selection."""
        if self.by_record and not self.filtered:
            return _composed(f"""
                SELECT coalesce(sum(cost_micros), 0)::bigint, count(*) FROM ledger.usage_records
                WHERE {self._chosen(self.selection.start, self.selection.end)}
            """)
        sources = " UNION ALL ".join(self._sources(Grouping()))
        return _composed(f"""
            SELECT coalesce(sum(cost_micros), 0)::bigint, coalesce(sum(records), 0)::bigint FROM ({sources}) s
        """)

    def groups(self) -> sql.Composed:
        """The sums of each group, one more than its limit."""
        names = [f"g{number}" for number in range(len(self.grouping.by))]
        columns = ", ".join(
            f"{_COLUMNS[dimension]} AS {name}" for name, dimension in zip(names, self.grouping.by, strict=True)
        )
        by_day = [name for name, dimension in zip(names, self.grouping.by, strict=True) if dimension is Dimension.DAY]
        order = [
            *(() if self.grouping.top else by_day),
            "cost DESC",
            *(f'{n} COLLATE "C"' if n not in by_day else n for n in names),
        ]
        sources = " UNION ALL ".join(self._sources(self.grouping))
        return _composed(f"""
            SELECT * FROM (
                SELECT {columns}, sum(cost_micros)::bigint AS cost, sum(records)::bigint AS records,
                       sum(input_tokens)::bigint AS sent, sum(output_tokens)::bigint AS received
                FROM ({sources}) s GROUP BY {", ".join(names)} HAVING sum(records) <> 0
            ) sums ORDER BY {", ".join(order)} LIMIT %({self._value(self.grouping.limit + 1)})s
        """)

    def records(self, after: Cursor | None, limit: int) -> sql.Composed:
        """Up to `limit` records after the cursor, newest first."""
        place = self._beyond("<", after)
        size = self._value(limit)
        chosen = self._chosen(self.selection.start, self.selection.end)
        order = f"ORDER BY occur_time DESC, event_id DESC LIMIT %({size})s"
        if self.by_record or not self.filtered:
            return _composed(f"SELECT {{usage}} FROM ledger.usage_records WHERE {chosen}{place} {order}")
        # The rollups know the hours in which there is something; only as many of them are read as fill the part.
        return _composed(f"""
            SELECT {{usage}} FROM ({self._hours(after, size)}) h CROSS JOIN LATERAL (
                SELECT * FROM ledger.usage_records
                WHERE {chosen}{place} AND occur_time >= h.hour AND occur_time < h.hour + interval '1 hour'
            ) r {order}
        """)

    def export(self, after: Cursor | None, limit: int) -> sql.Composed:
        """The next `limit` records, oldest first, each with its user and whether it is one of the selection: what a
        part costs is bounded, however little of it is asked for."""
        place = self._beyond(">", after)
        fits = " AND ".join([*self._alike, *self._facet_conditions()]) or "true"
        return _composed(f"""
            SELECT {{usage}}, user_name, {fits} FROM ledger.usage_records
            WHERE {self._indexed(self.selection.start, self.selection.end)}{place}
            ORDER BY occur_time, event_id LIMIT %({self._value(limit)})s
        """)

    def _sources(self, grouping: Grouping) -> list[str]:
        """Selects whose rows add up to the selection. A record without the job or tag that is grouped by is what the
        rows of all records have more than those of the facet: it is under the empty value."""
        (facet, *_) = facets_of(self.selection, grouping)
        if self.by_record:
            return [self._from_records((self.selection.start, self.selection.end), grouping)]
        spans = split(self.selection.start, self.selection.end)
        parts = [self._from_records(span, grouping) for span in spans.records]
        value = "value AS job, '' AS tag" if facet.key == "job" else "'' AS job, value AS tag"
        nothing = "'' AS job, '' AS tag"
        shares = [(facet, value, _SUMS)]
        if facet.key and facet.value is None:
            shares += [(Facet(), nothing, _SUMS), (facet, nothing, _NEGATIVE)]
        for share, values, sums in shares:
            for length, of_length in ((24, spans.days), (1, spans.hours)):
                parts += [
                    f"SELECT begin_time AS time, {values}, {_DIMENSIONS}, {sums} FROM ledger.usage_rollups"
                    f" WHERE {self._of_facet(share)} AND span_hours = {length}{self._within('begin_time', span)}"
                    for span in of_length
                ]
            parts += [
                f"SELECT hour AS time, {values}, {_DIMENSIONS}, {sums} FROM ledger.usage_deltas"
                f" WHERE {self._of_facet(share)}{self._within('hour', span)}"
                for span in spans.whole_hours
            ]
        return parts

    def _from_records(self, span: Span, grouping: Grouping) -> str:
        tag = f"coalesce(tags ->> %({self._value(grouping.tag)})s::text, '')" if grouping.tag else "''"
        return (
            f"SELECT occur_time AS time, job, {tag} AS tag, {_DIMENSIONS}, cost_micros, 1 AS records, input_tokens,"
            f" output_tokens FROM ledger.usage_records WHERE {self._chosen(*span)}"
        )

    def _hours(self, after: Cursor | None, size: str) -> str:
        """The newest hours with enough records of the selection. Those of an hour that is cut short by the end of the
        range or by the cursor are not counted on."""
        (facet, *_) = facets_of(self.selection, Grouping())
        ends = [t for t in (self.selection.end, None if after is None else after.occur_time) if t is not None]
        last = self._value(min(ends) if ends else "infinity")
        begin = self._value(self.selection.start or "-infinity")
        bounds = "{0} > %(" + begin + ")s::timestamptz - interval '1 hour' AND {0} <= %(" + last + ")s::timestamptz"
        return f"""
            SELECT hour FROM (
                SELECT hour, coalesce(sum(n) OVER (
                    ORDER BY hour DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS newer
                FROM (
                    SELECT hour, CASE WHEN hour + interval '1 hour' <= %({last})s::timestamptz
                                      THEN sum(records) ELSE 0 END AS n
                    FROM (
                        SELECT begin_time AS hour, records FROM ledger.usage_rollups
                        WHERE {self._of_facet(facet)} AND span_hours = 1 AND {bounds.format("begin_time")}
                        UNION ALL SELECT hour, records FROM ledger.usage_deltas
                        WHERE {self._of_facet(facet)} AND {bounds.format("hour")}
                    ) s GROUP BY hour
                ) counted
            ) hours WHERE newer < %({size})s
        """

    def _chosen(self, start: datetime | None, end: datetime | None) -> str:
        """The selection as conditions on records."""
        return " AND ".join([self._indexed(start, end), *self._alike, *self._facet_conditions()])

    def _indexed(self, start: datetime | None, end: datetime | None) -> str:
        """Those of its conditions that fit an index; what is not asked for is not in the statement."""
        condition = f"tenant = %(tenant)s{self._within('occur_time', (start, end))}"
        if self.selection.request_id:
            condition += f" AND request_id = %({self._value(self.selection.request_id)})s AND request_id <> ''"
        if self.selection.document:
            condition += f" AND document = %({self._value(self.selection.document)})s AND document <> ''"
        return condition

    def _facet_conditions(self) -> list[str]:
        conditions = []
        if self.selection.job:
            conditions.append(f"job = %({self._value(self.selection.job)})s")
        key, value = self.selection.tag
        if key:
            conditions.append(f"tags ->> %({self._value(key)})s::text = %({self._value(value)})s")
        return conditions

    def _of_facet(self, facet: Facet) -> str:
        conditions = ["tenant = %(tenant)s", f"facet = %({self._value(facet.key)})s", *self._alike]
        if facet.value is not None:
            conditions.append(f"value = %({self._value(facet.value)})s")
        return " AND ".join(conditions)

    def _within(self, column: str, span: Span) -> str:
        start, end = span
        after = f" AND {column} >= %({self._value(start)})s" if start is not None else ""
        return after + (f" AND {column} < %({self._value(end)})s" if end is not None else "")

    def _beyond(self, side: str, after: Cursor | None) -> str:
        if after is None:
            return ""
        time, event_id = self._value(after.occur_time), self._value(after.event_id)
        # The time once more by itself: by it alone, months are left out.
        return f" AND occur_time {side}= %({time})s AND (occur_time, event_id) {side} (%({time})s, %({event_id})s)"

    def _value(self, value: object) -> str:
        """The name under which a value is sent; texts of callers are never part of a statement."""
        for name, known in self.values.items():
            if type(known) is type(value) and known == value:
                return name
        name = f"v{len(self.values)}"
        self.values[name] = value
        return name


def _composed(statement: str) -> sql.Composed:
    """A statement that was put together from the constants above: every value in it is a placeholder."""
    return sql.SQL(statement).format(usage=USAGE_COLUMNS)
