"""Errors in the middle of a stream, where HTTP/1.1 clients can no longer see the status of the call."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from google.rpc import status_pb2

from services.runtime.status import to_status

R = TypeVar("R")


async def with_error_event(stream: AsyncIterator[R], *, make: Callable[[status_pb2.Status], R]) -> AsyncIterator[R]:
    """Passes the stream on. An error after its first message is sent as `make(status)` and then raised."""
    begun = False
    try:
        async for item in stream:
            yield item
            begun = True
    except Exception as exc:
        if begun:
            yield make(to_status(exc))
        raise
