"""When a call may have been made for its record to be taken: what the partitions of usage records cover."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.ledger.domain.checks import invalid_field
from services.runtime.errors import InvalidArgument

RETENTION_MONTHS = 84
"""How long usage records are kept unless told otherwise: seven years."""
AHEAD = timedelta(days=1)
"""How far a caller's clock may be ahead of the ledger's."""

_FIRST_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class UsageWindow:
    """The months that are kept: the present one and `retention_months` before it."""

    retention_months: int = RETENTION_MONTHS

    def first_time(self, now: datetime) -> datetime:
        """The beginning of the oldest month of which records are taken."""
        return max(months_before(now, self.retention_months), _FIRST_TIME)

    def drop_before(self, now: datetime) -> datetime:
        """Partitions that end here or earlier are removed: a month after their records were taken last, so that no
        record on its way meets a partition that goes."""
        return max(months_before(now, self.retention_months + 1), _FIRST_TIME)

    def bounds(self, now: datetime) -> tuple[datetime, datetime]:
        """The first and the last time of which records are taken."""
        return self.first_time(now), now + AHEAD


def time_out_of_range(path: str, first: datetime) -> InvalidArgument:
    """The refusal of a time out of its bounds."""
    return invalid_field(
        path,
        f"must be between {first.date().isoformat()} (UTC) and one day from now",
        reason="OCCUR_TIME_OUT_OF_RANGE",
    )


def month_of(time: datetime) -> datetime:
    """The beginning of its month, in UTC."""
    return time.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def months_before(time: datetime, months: int) -> datetime:
    """The beginning of the month that lies so many before that of `time`; never before the year 1."""
    count = max(time.year * 12 + time.month - 1 - months, 12)
    return datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)
