"""Errors in the middle of a stream, where HTTP/1.1 clients can no longer see the status of the call."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from google.rpc import status_pb2

from services.runtime.call import current_call
from services.runtime.errors import DeadlineExceeded
from services.runtime.status import to_status

R = TypeVar("R")

_LAST_WORDS_S = 0.3
"""The work ends so long before the deadline that the caller can still be told; at most a tenth of the time."""


async def with_error_event(
    stream: AsyncGenerator[R, None], *, make: Callable[[status_pb2.Status], R]
) -> AsyncGenerator[R, None]:
    """Passes the stream on. An error after its first message is sent as `make(status)` and then raised."""
    begun = False
    end = _end_of_work()
    async with aclosing(stream):
        try:
            while True:
                try:
                    async with asyncio.timeout_at(end) as timer:
                        item = await anext(stream)
                except StopAsyncIteration:
                    return
                except TimeoutError as exc:
                    if not timer.expired():
                        raise
                    raise DeadlineExceeded(
                        "DEADLINE_EXCEEDED", "The deadline passed before the work was done. Allow more time."
                    ) from exc
                yield item
                begun = True
        except Exception as exc:
            if begun:
                yield make(to_status(exc))
            raise


def _end_of_work() -> float | None:
    """In the event loop's time; None where the call has no deadline."""
    call = current_call()
    remaining = call.remaining_s()
    if call.deadline is None or remaining is None:
        return None
    return call.deadline - min(_LAST_WORDS_S, remaining / 10)
