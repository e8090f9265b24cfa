"""A span of time in whole days, whole hours and what is left at its ends."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

Span = tuple[datetime | None, datetime | None]
"""From the first, which is included, to the second, which is not; None means without end."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Parts that follow each other without a gap: `days` and `hours` are what the rollups of that length cover,
    `whole_hours` is both together, and `records` is shorter than an hour at either end."""

    days: tuple[Span, ...]
    hours: tuple[Span, ...]
    whole_hours: tuple[Span, ...]
    records: tuple[Span, ...]


def split(start: datetime | None, end: datetime | None) -> Spans:
    """The parts of a span of UTC times."""
    first_hour, last_hour = _up(start, HOUR), _down(end, HOUR)
    if first_hour is not None and last_hour is not None and first_hour >= last_hour:
        return Spans((), (), (), ((start, end),))
    records = _unless_empty((start, first_hour), (last_hour, end))
    first_day, last_day = _up(first_hour, DAY), _down(last_hour, DAY)
    whole: tuple[Span, ...] = ((first_hour, last_hour),)
    if first_day is not None and last_day is not None and first_day >= last_day:
        return Spans((), whole, whole, records)
    hours = _unless_empty((first_hour, first_day), (last_day, last_hour))
    return Spans(((first_day, last_day),), hours, whole, records)


def hour_of(time: datetime) -> datetime:
    """The beginning of its hour."""
    return time.replace(minute=0, second=0, microsecond=0)


def day_of(time: datetime) -> datetime:
    """The beginning of its day, in UTC."""
    return time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _unless_empty(*spans: Span) -> tuple[Span, ...]:
    return tuple(span for span in spans if span[0] != span[1])


def _down(time: datetime | None, step: timedelta) -> datetime | None:
    if time is None:
        return None
    return hour_of(time) if step == HOUR else day_of(time)


def _up(time: datetime | None, step: timedelta) -> datetime | None:
    low = _down(time, step)
    return low if low is None or low == time else low + step
