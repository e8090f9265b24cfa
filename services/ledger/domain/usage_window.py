"""When a call may have been made for its record to be taken: what the partitions of usage records cover."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.ledger.domain.checks import invalid_field

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

    def check(self, time: datetime, path: str, now: datetime) -> None:
        """Raises InvalidArgument OCCUR_TIME_OUT_OF_RANGE for a time before the kept months or past tomorrow."""
        if not self.first_time(now) <= time <= now + AHEAD:
            raise invalid_field(
                path,
                f"must be between {self.first_time(now).date().isoformat()} (UTC) and one day from now",
                reason="OCCUR_TIME_OUT_OF_RANGE",
            )


def month_of(time: datetime) -> datetime:
    """The beginning of its month, in UTC."""
    return time.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def months_before(time: datetime, months: int) -> datetime:
    """The beginning of the month that lies so many before that of `time`; never before the year 1."""
    count = max(time.year * 12 + time.month - 1 - months, 12)
    return datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)
