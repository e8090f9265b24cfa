"""What the month will have cost, from the days before: simple, in integers, and not thrown off by one odd day."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from services.ledger.domain.usage_spans import DAY, day_of
from services.ledger.domain.usage_values import Forecast
from services.ledger.domain.usage_window import month_of, months_before

TRAILING_DAYS = 28
"""Whole weeks, so that each day of the week counts the same."""
LEAST_DAYS = 7
_TRIM = 10
"""A tenth of the days is left out at either end before the mean is taken."""
_DAY_S = 86_400


def month_end_of(now: datetime) -> datetime:
    """The beginning of the next month."""
    return months_before(now, -1)


def forecast(now: datetime, first_hour: datetime | None, costs: Mapping[datetime, int]) -> Forecast:
    """The forecast at `now`.

    `costs` are micro-units by day (its beginning in UTC) from the month's beginning or TRAILING_DAYS ago, whichever is
    earlier, up to today; days that are missing cost nothing. The history is the trailing days from the first call on,
    without today. Expected: what was spent this month, and for the time that is left the mean day of the history
    without its dearest and cheapest tenth. Low and high: the same with the first and the third quartile of the days,
    which is wide rather than narrow since dear and cheap days even out.
    """
    month, end, today = month_of(now), month_end_of(now), day_of(now)
    spent = sum(cost for day, cost in costs.items() if month <= day)
    begin = today - TRAILING_DAYS * DAY
    if first_hour is not None:
        begin = max(begin, day_of(first_hour + DAY - timedelta(microseconds=1)))
    count = 0 if first_hour is None else max((today - begin) // DAY, 0)
    if count < LEAST_DAYS:
        return Forecast(month, end, spent, count)
    days = sorted(costs.get(begin + n * DAY, 0) for n in range(count))
    left_s = int((end - now).total_seconds())
    trimmed = days[count // _TRIM : count - count // _TRIM]
    expected = sum(trimmed) * left_s // (len(trimmed) * _DAY_S)
    low, high = (days[(count - 1) * quarter // 4] * left_s // _DAY_S for quarter in (1, 3))
    return Forecast(
        month,
        end,
        spent,
        count,
        expected_micros=spent + expected,
        low_micros=spent + min(low, expected),
        high_micros=spent + max(high, expected),
    )
