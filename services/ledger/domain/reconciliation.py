"""What an operator does about holds that nobody answers for."""

from collections.abc import Sequence
from uuid import UUID

from services.ledger.domain.books import Books
from services.ledger.domain.checks import check_text, invalid_field
from services.ledger.domain.ports import HoldStore
from services.ledger.domain.values import Caller, Hold, HoldState, Tokens, UsageEvent, UsageRecord
from services.runtime.errors import FailedPrecondition, NotFound

OPERATION = "reconcile"
"""Of the usage record of a call that an operator settled."""
MOST_HOLDS = 10_000
_MOST_TOKENS = 10**9
_LONGEST_REQUEST_ID = 128
# Both bounds are those of UsageEvent in the contract, which events from an operator do not pass through.


class Reconciliation:
    """Closes holds that became UNKNOWN: their call may have been sent, and its maker never told what became of it.

    A hold that is still HELD is left to its maker, who may be about to settle it.
    """

    def __init__(self, *, holds: HoldStore, books: Books) -> None:
        self._holds = holds
        self._books = books

    async def unanswered(self, tenant: str | None, *, limit: int) -> Sequence[Hold]:
        """Up to `limit` holds in state UNKNOWN, of one tenant or of all, oldest first. Raises InvalidArgument."""
        if not 1 <= limit <= MOST_HOLDS:
            raise invalid_field("limit", f"must be between 1 and {MOST_HOLDS}")
        return await self._holds.unknown(tenant, limit)

    async def settle(self, tenant: str, hold_id: UUID, used: Tokens, *, request_id: str = "") -> UsageRecord:
        """Records that the call was made and used this much; again with the same arguments, it answers the same.

        The record has the hold's id as its event id, as the maker's own would, and the hold's model, actor and time.

        Raises NotFound HOLD_NOT_FOUND, FailedPrecondition HOLD_NOT_UNKNOWN (it is still HELD), HOLD_ALREADY_SETTLED
        (otherwise than so) or HOLD_RELEASED, InvalidArgument for tokens or a request id that cannot be.
        """
        for name, tokens in (("input_tokens", used.sent), ("output_tokens", used.received)):
            if not 0 <= tokens <= _MOST_TOKENS:
                raise invalid_field(name, f"must be between 0 and {_MOST_TOKENS}")
        check_text(request_id, "request_id")
        if len(request_id) > _LONGEST_REQUEST_ID:
            raise invalid_field("request_id", f"must have at most {_LONGEST_REQUEST_ID} characters")
        hold = await self._left_by_its_maker(tenant, hold_id)
        event = UsageEvent(
            event_id=hold_id,
            model=hold.model,
            tokens=used,
            operation=OPERATION,
            document="",
            request_id=request_id,
            occur_time=hold.create_time,
            job=hold.job,
        )
        _, record = await self._books.settle(Caller(tenant, hold.actor), hold_id, event)
        return record

    async def release(self, tenant: str, hold_id: UUID) -> Hold:
        """Frees the money: the call was never sent. Again, it answers the same.

        Raises NotFound HOLD_NOT_FOUND, FailedPrecondition HOLD_NOT_UNKNOWN or HOLD_ALREADY_SETTLED.
        """
        hold = await self._left_by_its_maker(tenant, hold_id)
        return await self._books.release(Caller(tenant, hold.actor), hold_id)

    async def _left_by_its_maker(self, tenant: str, hold_id: UUID) -> Hold:
        # No hold becomes HELD again, so what is found here stays true.
        hold = await self._holds.find(tenant, hold_id)
        if hold is None:
            raise NotFound("HOLD_NOT_FOUND", "There is no such hold.")
        if hold.state is HoldState.HELD:
            raise FailedPrecondition(
                "HOLD_NOT_UNKNOWN",
                f"The hold's call may still be under way: leave it to its maker until {hold.expire_time.isoformat()}.",
            )
        return hold
