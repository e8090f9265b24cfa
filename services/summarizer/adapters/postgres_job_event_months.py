"""The monthly partitions of the events of jobs: made ahead, and removed once they are empty."""

from datetime import UTC, datetime, timedelta

import psycopg

from services.database.pool import Pool, single, translate

_AHEAD = 3
_LATE = timedelta(days=1)
"""How far a server's clock may be behind: after that, no job of a month that is over is made any more."""
_MAKE = "SELECT summarizer.make_job_event_partition(%s)"
_DROP = "SELECT summarizer.drop_job_event_partition(%s)"


class PostgresEventMonths:
    """Several workers may make and remove them at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._made: set[datetime] = set()

    async def keep(self, now: datetime) -> None:
        """Makes this month and the next three, and drops a month that is over and has no events left.

        A table that somebody uses is left for the next time. Raises Unavailable where the database is gone.
        """
        with translate("jobs.event_months"):
            async with single(self._pool) as connection:
                try:
                    for month in _months(now):
                        if month not in self._made:
                            await connection.execute(_MAKE, (month,))
                            self._made.add(month)
                    await connection.execute(_DROP, (now - _LATE,))
                except psycopg.errors.LockNotAvailable:
                    return


def _months(now: datetime) -> list[datetime]:
    place = now.year * 12 + now.month - 1
    return [datetime(at // 12, at % 12 + 1, 1, tzinfo=UTC) for at in range(place, place + _AHEAD + 1)]
