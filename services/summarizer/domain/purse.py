"""What one request may spend: it never spends more, however many of its calls are under way at once."""

import asyncio
from collections.abc import Hashable

from services.runtime.errors import FailedPrecondition, FieldViolation, InvalidArgument
from services.summarizer.domain.values import Money

CURRENCY = "USD"
"""Currency of every price, and so of every bound."""
MAX_COST_EXCEEDED = "MAX_COST_EXCEEDED"
"""The reason of a refusal."""


class Purse:
    """Spent and held, together never more than `most`, in micro-units.

    A call takes the most that it can cost before it is made and gives back what it did not cost. One purse serves all
    calls of a request, also those of another model that steps in. It belongs to one event loop and needs no lock: what
    has to be decided together is decided without waiting in between. `spent_micros` is what was spent before, such as
    by earlier runs of the same job.
    """

    def __init__(self, most: Money, *, spent_micros: int = 0) -> None:
        """Raises InvalidArgument MAX_COST_CURRENCY for another currency than that of the prices."""
        check_currency(most)
        self._most = most.micros
        self._spent = spent_micros
        self._held: dict[str, int] = {}
        self._changed = asyncio.Event()

    @property
    def key(self) -> Hashable:
        """Requests whose purses have the same may share a run: none of them fails on the bound of another."""
        return self._most

    @property
    def spent_micros(self) -> int:
        """What ended calls cost; one that may have been charged counts with the most that it can have cost."""
        return self._spent

    @property
    def held_micros(self) -> int:
        """What calls under way can cost at most."""
        return sum(self._held.values())

    async def take(self, hold_id: str, amount: Money) -> bool:
        """Takes the money for a call; False, with nothing taken, where it would be too much."""
        if self._spent + self.held_micros + amount.micros > self._most:
            return False
        self._held[hold_id] = amount.micros
        return True

    async def end(self, hold_id: str, cost_micros: int | None) -> None:
        """The call ended and cost this; None where nobody knows, and then it counts with what was taken for it. Again,
        nothing happens."""
        taken = self._held.pop(hold_id, None)
        if taken is not None:
            self._spent += taken if cost_micros is None else cost_micros
            self._changed.set()
            self._changed = asyncio.Event()

    async def room_for(self, amount: Money) -> None:
        """Returns once calls that were under way cost less than was taken for them, so that there may be room.

        Raises FailedPrecondition MAX_COST_EXCEEDED where there never will be.
        """
        while self._spent + self.held_micros + amount.micros > self._most:
            if not self._held or self._spent + amount.micros > self._most:
                raise self._exceeded(amount.micros)
            await self._changed.wait()

    def _advice(self, needed_micros: int) -> str:
        return "What was bought is kept and serves the next try."

    def _exceeded(self, micros: int) -> FailedPrecondition:
        needed = self._spent + micros
        return FailedPrecondition(
            MAX_COST_EXCEEDED,
            f"The next call to the model can cost {micros} micro-units of {CURRENCY}, and {self._spent} of max_cost "
            f"{self._most} are spent. It needs {needed} at least, and more where further calls follow: Estimate tells "
            f"how much all of it may cost. {self._advice(needed)}",
            fields=[FieldViolation("max_cost", f"must be {needed} micro-units at least")],
            metadata={
                "max_cost_micros": str(self._most),
                "spent_micros": str(self._spent),
                "needed_micros": str(needed),
            },
        )


def check_currency(most: Money) -> None:
    """Raises InvalidArgument MAX_COST_CURRENCY for a bound in another currency than that of the prices."""
    if most.currency != CURRENCY:
        raise InvalidArgument(
            "MAX_COST_CURRENCY",
            f"Prices are in {CURRENCY}. Give max_cost in {CURRENCY}.",
            fields=[FieldViolation("max_cost.currency", f"must be {CURRENCY}")],
        )
