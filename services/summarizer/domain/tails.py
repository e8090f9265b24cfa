"""Work that must outlive the request it belongs to."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Tails:
    """Owns tasks that a cancelled request leaves behind: what was bought is written down all the same."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs it to its end, whoever waits for it; its errors are for those who await the task."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits it. Cancelling this leaves it running."""
        return await asyncio.shield(self.start(work))

    async def close(self, grace_s: float) -> None:
        """Waits up to `grace_s` seconds for what still runs, then cancels it."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Whoever waited has it too; asking for it here keeps asyncio from reporting it as lost.
            task.exception()
