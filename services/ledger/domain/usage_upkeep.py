"""What has to be done to the usage records from time to time: sums are added up, months come and go."""

from services.ledger.domain.ports import Clock, Partitions, Rollups
from services.ledger.domain.usage_window import UsageWindow, months_before

FOLD_BATCH = 5_000
FOLD_BATCHES = 20
"""Most batches of one round: what is left over waits for the next one, and is counted all the same."""
MONTHS_AHEAD = 3
DROP_STEPS = 20


class UsageUpkeep:
    """One round of each kind of work. Several replicas may do it at once."""

    def __init__(self, *, rollups: Rollups, partitions: Partitions, window: UsageWindow, clock: Clock) -> None:
        self._rollups = rollups
        self._partitions = partitions
        self._window = window
        self._clock = clock

    async def fold(self) -> int:
        """Adds queued sums to the rollups, in batches; answers how many."""
        total = 0
        for _ in range(FOLD_BATCHES):
            folded = await self._rollups.fold(FOLD_BATCH)
            total += folded
            if folded < FOLD_BATCH:
                break
        return total

    async def prepare_months(self) -> int:
        """Makes the partitions of this month and the next MONTHS_AHEAD; answers how many were missing."""
        now = self._clock()
        return await self._partitions.ensure(months_before(now, -n) for n in range(MONTHS_AHEAD + 1))

    async def drop_months(self) -> int:
        """Removes partitions past their retention, a bounded amount of work; answers how many are gone."""
        gone = 0
        for _ in range(DROP_STEPS):
            done = await self._partitions.drop_one(self._window.drop_before(self._clock()))
            if done is None:
                break
            gone += done
        return gone
