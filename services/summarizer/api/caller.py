"""Who calls."""

from services.runtime.call import current_call, current_identity
from services.summarizer.domain.values import Caller


def current_deadline() -> float | None:
    """Until when the caller waits, in the event loop's time; None for ever."""
    return current_call().deadline


def current_caller() -> Caller:
    """For whom the current call is made. Raises Unauthenticated where it names nobody."""
    identity, call = current_identity(), current_call()
    return Caller(
        tenant=identity.tenant,
        actor=identity.actor,
        project=identity.project,
        scopes=identity.scopes,
        request_id=call.request_id,
        trace=call.trace.header(),
    )
