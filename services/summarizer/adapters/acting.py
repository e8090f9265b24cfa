"""Puts a caller of the domain on outgoing calls."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from services.runtime.call import Call, Identity, acting_as, current_call, enter
from services.summarizer.domain.values import Caller


@contextlib.contextmanager
def act_as(caller: Caller) -> Iterator[None]:
    """Outgoing calls inside the block are made for `caller`, without a deadline of an incoming call.

    Inside the call that the caller made, its trace goes on; elsewhere a new one begins.
    """
    identity = Identity(caller.tenant, caller.actor, caller.project, caller.scopes)
    call = _incoming_call()
    if call is None or (call.identity, call.request_id) != (identity, caller.request_id):
        with acting_as(identity, request_id=caller.request_id):
            yield
        return
    enter(replace(call, deadline=None))
    try:
        yield
    finally:
        enter(call)


def _incoming_call() -> Call | None:
    try:
        return current_call()
    except LookupError:
        return None
