"""The sweep of the running service."""

import asyncio

import pytest

from services.extractor import __main__ as service


async def test_it_outlives_what_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = 0
    twice = asyncio.Event()

    class Broken:
        async def sweep(self) -> int:
            nonlocal sweeps
            sweeps += 1
            if sweeps == 2:
                twice.set()
            raise KeyError("unforeseen")

    monkeypatch.setattr(service, "_SWEEP_EVERY_S", 0)
    task = asyncio.create_task(service._sweep(Broken(), Broken()))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await asyncio.wait([task, asyncio.create_task(twice.wait())], return_when=asyncio.FIRST_COMPLETED)
    assert not task.done()
    await service._cancel(task)
