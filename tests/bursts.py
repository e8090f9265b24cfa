"""Events that come several at a time, one after the other."""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")


async def each(bursts: AsyncIterable[Sequence[T]]) -> AsyncIterator[T]:
    """The events of all bursts. Whoever may stop midway closes `bursts`."""
    async for burst in bursts:
        for event in burst:
            yield event
