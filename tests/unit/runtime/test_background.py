"""What runs beside the calls of a service: it ends with it, and a service does not go on without it."""

import asyncio

import pytest

from services.runtime.background import beside


async def test_work_ends_although_it_lost_a_cancellation() -> None:
    begun, heard = asyncio.Event(), []

    async def loses_one() -> None:
        while True:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append(1)
                if len(heard) > 1:
                    raise

    async with asyncio.timeout(60):
        async with beside(loses_one()):
            await begun.wait()
    assert len(heard) == 2


async def test_who_fails_ends_the_block_and_the_others() -> None:
    ended = []

    async def fails() -> None:
        raise ConnectionError("gone")

    async def lives() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(60), beside(lives(), fails()):
            await asyncio.Event().wait()
    assert ended
    assert [type(error) for error in raised.value.exceptions] == [ConnectionError]
