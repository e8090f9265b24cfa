"""What is told of usage: sums by dimensions, parts of the list, a forecast."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from services.ledger.domain.values import Cursor, Selection, UsageRecord


class Dimension(Enum):
    """By what records are added up."""

    DAY = "day"
    MODEL = "model"
    TAG = "tag"
    API_KEY = "api_key"
    PROJECT = "project"
    USER = "user"
    JOB = "job"
    OPERATION = "operation"


@dataclass(frozen=True, slots=True)
class Grouping:
    """By what to add up, and how many groups to tell.

    `tag` is the key whose values TAG means. With `top`, the groups that cost most come first and no more than so many;
    without it, they come by day and then by cost, MOST_GROUPS at most.
    """

    by: tuple[Dimension, ...] = ()
    tag: str = ""
    top: int = 0

    @property
    def limit(self) -> int:
        """Most groups of the answer."""
        return self.top or MOST_GROUPS


MOST_GROUPS = 1000
UNGROUPED = Grouping()


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """The sums of the records that are alike. `values` stand in the order of the grouping: the day as its beginning in
    UTC, everything else as text, which is empty for records that have no such thing."""

    values: tuple[datetime | str, ...]
    cost_micros: int
    records: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Some records, newest first, the sums over the whole selection and its groups, all of one moment.

    `held_micros` is what open holds of the tenant set aside, whatever the selection.
    """

    records: tuple[UsageRecord, ...]
    total_cost_micros: int
    total_records: int
    held_micros: int
    groups: tuple[UsageGroup, ...] = ()
    more_groups: bool = False


@dataclass(frozen=True, slots=True)
class ExportedRecord:
    """A record with the user that its key belonged to, `users/…` or empty."""

    record: UsageRecord
    user: str


@dataclass(frozen=True, slots=True)
class ExportPart:
    """Some records, oldest first, and the place after which the next part begins; None at the end."""

    records: tuple[ExportedRecord, ...]
    after: Cursor | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a month will have cost. The three estimates are None where there is too little history."""

    month: datetime
    month_end: datetime
    spent_micros: int
    history_days: int
    expected_micros: int | None = None
    low_micros: int | None = None
    high_micros: int | None = None


@dataclass(frozen=True, slots=True)
class Facet:
    """The rows of the rollups that answer a question: every record once (`key` is empty), or once for its job (`job`)
    or for one of its tags (`tag:{key}`). `value` None means every value, and records without one as well."""

    key: str = ""
    value: str | None = None


def facets_of(selection: Selection, grouping: Grouping) -> list[Facet]:
    """The facets that a question needs: one at least; with more than one, rollups cannot answer it."""
    wanted: dict[str, str | None] = {}
    if Dimension.JOB in grouping.by:
        wanted["job"] = None
    if Dimension.TAG in grouping.by:
        wanted[f"tag:{grouping.tag}"] = None
    if selection.job:
        wanted["job"] = selection.job
    if selection.tag[0]:
        wanted[f"tag:{selection.tag[0]}"] = selection.tag[1]
    return [Facet(key, value) for key, value in wanted.items()] or [Facet()]
