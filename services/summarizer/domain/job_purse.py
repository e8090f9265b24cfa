"""What a job may spend over all of its attempts, written down before each call: no crash forgets it."""

from collections.abc import Hashable

from services.runtime.errors import Aborted, PagemeshError
from services.summarizer.domain.job_ports import JobSpending
from services.summarizer.domain.jobs import Claim
from services.summarizer.domain.purse import CURRENCY, Purse
from services.summarizer.domain.values import Money

_NO_BOUND = Money(CURRENCY, 2**62)


class JobPurse(Purse):
    """The purse of one attempt. It begins with what earlier attempts spent, and what they may have spent.

    What a call can cost at most is on disk before the call is made, and only the attempt that holds the job may write
    it: so neither a worker that died nor one that was cut off spends past the bound. A job without a bound is written
    down the same, for its `spent`, and for a bound that it may be given later.
    """

    def __init__(self, claim: Claim, spending: JobSpending) -> None:
        super().__init__(claim.max_cost or _NO_BOUND, spent_micros=claim.spent_micros)
        self._claim = claim
        self._spending = spending
        self._written: set[str] = set()

    @property
    def key(self) -> Hashable:
        """No run is shared with another job: its calls are on the account of the one that began it."""
        return (self._claim.job_id, self._claim.attempt)

    async def take(self, hold_id: str, amount: Money) -> bool:
        """As for a request. Raises Aborted JOB_FENCED_OFF where somebody else has the job by now, and Unavailable."""
        if not await super().take(hold_id, amount):
            return False
        if amount.micros:
            self._written.add(hold_id)
            if not await self._spending.taken(self._claim, hold_id, amount.micros):
                raise Aborted("JOB_FENCED_OFF", "Another worker has the job, or it has ended.")
        return True

    async def end(self, hold_id: str, cost_micros: int | None) -> None:
        """As for a request. Where it cannot be written down, the call goes on counting with the most."""
        await super().end(hold_id, cost_micros)
        if hold_id in self._written and cost_micros is not None:
            self._written.discard(hold_id)
            try:
                await self._spending.ended(self._claim.caller.tenant, hold_id, cost_micros)
            except PagemeshError:
                return  # the outbox may still tell it, and the most is the safe side

    def _advice(self, needed_micros: int) -> str:
        return (
            "What was bought is kept: RetryJob with a larger max_cost "
            f"({needed_micros} micro-units at least) goes on from there."
        )
