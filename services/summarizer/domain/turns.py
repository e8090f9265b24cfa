"""One buyer for each answer at a time, over all replicas."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.runtime.errors import PagemeshError
from services.summarizer.domain.ports import Committed, Results

LEASE_S = 10.0
"""A buyer that is killed keeps the others waiting so long."""
_RENEW_S = 3.0
_LONGEST_S = 600.0
"""No call takes longer: a turn that lasts is renewed no more, and another buyer may try."""
_FIRST_WAIT_S = 0.05
_MAX_WAIT_S = 1.0


class TurnBook(Protocol):
    """Who buys what. Errors: Unavailable, DeadlineExceeded."""

    async def take(self, tenant: str, key: bytes, holder: str, lease_s: float) -> bool:
        """Whether `holder` has the turn for the key, for `lease_s` from now: nobody had it, or the holder himself, or
        its lease has run out."""
        ...

    async def leave(self, tenant: str, key: bytes, holder: str) -> None:
        """Ends the holder's turn; fine where he has none."""
        ...


@dataclass(slots=True)
class Turn:
    """The right to buy one answer, until it is left."""

    tenant: str
    key: bytes
    holder: str
    renewing: asyncio.Task[None]


class Turns:
    """Gives turns, or the answer that somebody else bought meanwhile.

    What is bought twice all the same, because a buyer stood still for longer than his lease, is booked twice: the books
    are right in any case.
    """

    def __init__(self, *, book: TurnBook, results: Results, new_id: Callable[[], str]) -> None:
        self._book = book
        self._results = results
        self._new_id = new_id

    async def wait_for(self, tenant: str, key: bytes) -> Turn | Committed:
        """The answer where there is one, else a turn, waiting for those who have it. Raises what TurnBook and Results
        raise. Cancelling it gives up a turn that may just have been taken: its lease runs out."""
        holder, wait_s = self._new_id(), _FIRST_WAIT_S
        while not await self._book.take(tenant, key, holder, LEASE_S):
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, _MAX_WAIT_S)
        turn = Turn(tenant, key, holder, asyncio.create_task(self._renew(tenant, key, holder)))
        try:
            # Whoever had it before us may have bought the answer since we looked.
            found = (await self._results.find(tenant, [key])).get(key)
        except BaseException:
            turn.renewing.cancel()
            raise
        if found is None:
            return turn
        await self.leave(turn)
        return found

    async def leave(self, turn: Turn) -> None:
        """The next may buy. Where the book is away the lease runs out."""
        turn.renewing.cancel()
        try:
            await self._book.leave(turn.tenant, turn.key, turn.holder)
        except PagemeshError:
            return

    async def _renew(self, tenant: str, key: bytes, holder: str) -> None:
        for _ in range(int(_LONGEST_S / _RENEW_S)):
            await asyncio.sleep(_RENEW_S)
            try:
                if not await self._book.take(tenant, key, holder, LEASE_S):
                    return
            except PagemeshError:
                continue
