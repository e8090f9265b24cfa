"""The breaker: it trips, rests, lets one probe through, and never counts what is no failure."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from services.runtime.breaker import Breaker
from services.runtime.errors import InvalidArgument, Unavailable


async def fail() -> None:
    raise Unavailable("DOWN", "down")


async def succeed() -> str:
    return "ok"


async def tripped(name: str, *, reset_timeout_s: float) -> Breaker:
    breaker = Breaker(name, fail_max=3, reset_timeout_s=reset_timeout_s)
    for _ in range(3):
        with pytest.raises(Unavailable, match="DOWN"):
            await breaker.call(fail)
    assert breaker.state == ("open" if reset_timeout_s else "half-open")
    return breaker


async def test_it_opens_after_failures_in_a_row_and_does_not_call() -> None:
    breaker = await tripped("opens", reset_timeout_s=60)
    called = False

    async def call() -> None:
        nonlocal called
        called = True

    with pytest.raises(Unavailable, match="BREAKER_OPEN") as refused:
        await breaker.call(call)
    assert not called
    assert refused.value.retry_after_s is not None
    assert 50 < refused.value.retry_after_s <= 60
    assert REGISTRY.get_sample_value("pagemesh_breaker_state", {"breaker": "opens"}) == 2


async def test_calls_run_beside_each_other() -> None:
    breaker = Breaker("parallel")
    barrier = asyncio.Barrier(6)

    async def meet() -> None:
        await barrier.wait()

    async with asyncio.timeout(5):
        await asyncio.gather(*(breaker.call(meet) for _ in range(6)))


async def test_half_open_admits_one_probe_and_its_success_closes() -> None:
    breaker = await tripped("probe", reset_timeout_s=0)
    inside, release = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        inside.set()
        await release.wait()

    probe = asyncio.create_task(breaker.call(slow))
    await inside.wait()
    for _ in range(10):
        with pytest.raises(Unavailable, match="BREAKER_OPEN"):
            await breaker.call(succeed)
    release.set()
    await probe
    assert breaker.state == "closed"
    assert await breaker.call(succeed) == "ok"


async def test_a_failed_probe_opens_again() -> None:
    breaker = await tripped("reopens", reset_timeout_s=1)
    async with asyncio.timeout(10):
        while breaker.state != "half-open":
            await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="DOWN"):
        await breaker.call(fail)
    with pytest.raises(Unavailable, match="BREAKER_OPEN"):
        await breaker.call(succeed)


async def test_a_cancelled_probe_decides_nothing_and_frees_its_place() -> None:
    breaker = await tripped("cancelled", reset_timeout_s=0)
    inside = asyncio.Event()

    async def hang() -> None:
        inside.set()
        await asyncio.Event().wait()

    probe = asyncio.create_task(breaker.call(hang))
    await inside.wait()
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert breaker.state == "half-open"
    assert await breaker.call(succeed) == "ok"
    assert breaker.state == "closed"


async def test_refusals_and_cancellations_are_no_failures() -> None:
    breaker = Breaker("refusals", fail_max=2)

    async def refuse() -> None:
        raise InvalidArgument("NO", "no")

    async def cancelled() -> None:
        raise asyncio.CancelledError

    for _ in range(5):
        with pytest.raises(InvalidArgument):
            await breaker.call(refuse)
        with pytest.raises(asyncio.CancelledError):
            await breaker.call(cancelled)
    assert breaker.state == "closed"


async def test_a_late_failure_from_before_the_trip_does_not_disturb_the_probe() -> None:
    breaker = Breaker("late", fail_max=1, reset_timeout_s=0)
    go_late, go_probe, probing = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late() -> None:
        await go_late.wait()
        raise Unavailable("LATE", "late")

    async def slow() -> None:
        probing.set()
        await go_probe.wait()

    early = asyncio.create_task(breaker.call(late))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="DOWN"):
        await breaker.call(fail)
    probe = asyncio.create_task(breaker.call(slow))
    await probing.wait()
    go_late.set()
    with pytest.raises(Unavailable, match="LATE"):
        await early
    assert breaker.state == "half-open"
    go_probe.set()
    await probe
    assert breaker.state == "closed"
