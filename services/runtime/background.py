"""Work that a service does beside its calls, from its start to its stop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine

_SAID_AGAIN_S = 2.0


@contextlib.asynccontextmanager
async def beside(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs them while the block does, and ends them with it. Where one of them fails, so does the block: half alive, a
    service would keep what that work is for."""
    async with asyncio.TaskGroup() as background:
        tasks = {background.create_task(work) for work in works}
        try:
            yield
        finally:
            # Python 3.11 loses a cancellation that comes as asyncio.wait_for gets what it waits for, such as a
            # connection of a pool that has just been opened. So it is said until it was heard.
            while tasks:
                for task in tasks:
                    task.cancel()
                _, tasks = await asyncio.wait(tasks, timeout=_SAID_AGAIN_S)
