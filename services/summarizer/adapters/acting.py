"""The caller of the summarizer's use cases, taken from the incoming call and put on outgoing ones."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from services.runtime.call import Call, Identity, acting_as, current_call, current_identity, entered
from services.runtime.errors import Unauthenticated
from services.summarizer.domain.values import Caller


def current_caller() -> Caller:
    """For whom the current call is made. Raises Unauthenticated where it names nobody."""
    identity = current_identity()
    return Caller(
        tenant=identity.tenant,
        actor=identity.actor,
        project=identity.project,
        scopes=identity.scopes,
        request_id=current_call().request_id,
    )


@contextlib.contextmanager
def act_as(caller: Caller) -> Iterator[None]:
    """Outgoing calls inside the block are made for `caller`, without a deadline of an incoming call.

    Inside the call that the caller made, its trace goes on; elsewhere a new one begins.
    """
    identity = Identity(caller.tenant, caller.actor, caller.project, caller.scopes)
    call = _call_of(caller)
    with entered(replace(call, deadline=None)) if call else acting_as(identity, request_id=caller.request_id):
        yield


def _call_of(caller: Caller) -> Call | None:
    try:
        return current_call() if current_caller() == caller else None
    except (LookupError, Unauthenticated):
        return None
