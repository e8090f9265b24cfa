"""What is logged of a component that is down: enough for an operator, and nothing that a library wrote."""

import asyncio
import contextlib
import errno

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from services.readiness import component as module
from services.readiness.component import PROBES_TO_DOWN
from services.runtime.errors import Unavailable
from services.runtime.health import Health

SECRET = "postgresql://ledger:s3cret@db/pagemesh"
NOT_OURS = "`error` says why."


class Part:
    """A component that is up unless it has a failure."""

    failure: Exception | None = None

    async def check(self) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def part() -> Part:
    return Part()


@pytest.fixture
def health(part: Part, monkeypatch: pytest.MonkeyPatch) -> Health:
    # A service that ran in this process before has bound the module's own for good.
    monkeypatch.setattr(module, "log", structlog.get_logger())
    health = Health()
    health.add("database", part.check)
    return health


async def until_ready(health: Health) -> None:
    while not health.ready:
        await health.probe()


async def logged(health: Health, probes: int) -> list[EventDict]:
    with capture_logs() as lines:
        for _ in range(probes):
            await health.probe()
    return lines


def failed_within() -> Exception:
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as exc:
            raise Unavailable("STORE_UNAVAILABLE", "The object store does not answer.") from exc
    except Unavailable as exc:
        return exc


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (
            failed_within(),
            {
                "error": "ValueError",
                "reason": "STORE_UNAVAILABLE",
                "message": "The object store does not answer.",
            },
        ),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, f"{SECRET} refused"),
            {"error": "ConnectionRefusedError", "reason": "CHECK_FAILED", "message": NOT_OURS},
        ),
        (TimeoutError(), {"error": "TimeoutError", "reason": "CHECK_FAILED", "message": NOT_OURS}),
    ],
    ids=["ours", "foreign", "too late"],
)
async def test_why_a_component_is_down_is_told_without_what_others_wrote(
    health: Health, part: Part, failure: Exception, told: dict[str, str]
) -> None:
    await health.probe()
    part.failure = failure
    (line,) = await logged(health, PROBES_TO_DOWN)
    assert line == {"event": "component_down", "log_level": "error", "component": "database", **told}
    assert "s3cret" not in str(line)


async def test_a_check_that_never_answers_is_told(health: Health, part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_TIMEOUT_S", 0.01)

    async def hang() -> None:
        await asyncio.Event().wait()

    health.add("redis", hang, required=False)
    up, down = await logged(health, PROBES_TO_DOWN)
    assert (up["event"], up["component"]) == ("component_up", "database")
    assert (down["event"], down["component"], down["error"]) == ("component_down", "redis", "TimeoutError")


async def test_each_change_is_told_once_and_one_slow_answer_is_none(health: Health, part: Part) -> None:
    assert [line["event"] for line in await logged(health, 3)] == ["component_up"]
    part.failure = TimeoutError()
    assert await logged(health, PROBES_TO_DOWN - 1) == []
    part.failure = None
    assert await logged(health, 2) == []
    part.failure = TimeoutError()
    assert [line["event"] for line in await logged(health, PROBES_TO_DOWN + 2)] == ["component_down"]
    part.failure = None
    assert [line["event"] for line in await logged(health, 2)] == ["component_up"]


async def test_what_never_was_up_is_told_as_well(health: Health, part: Part) -> None:
    part.failure = Unavailable("DATABASE_UNAVAILABLE", "The database does not answer.")
    assert [line["reason"] for line in await logged(health, PROBES_TO_DOWN + 2)] == ["DATABASE_UNAVAILABLE"]
    assert not health.ready


async def test_a_check_that_cannot_be_cancelled_holds_nobody_up(
    health: Health, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a driver does that waits for a frozen server to cancel: no probe waits for it, and no second one is sent."""
    monkeypatch.setattr(module, "PROBE_TIMEOUT_S", 0.01)
    thaw, asked = asyncio.Event(), 0

    async def frozen() -> None:
        nonlocal asked
        asked += 1
        while not thaw.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await thaw.wait()

    health.add("store", frozen)
    thaw.set()
    await health.probe()
    assert health.ready
    thaw.clear()
    async with asyncio.timeout(60):
        for _ in range(PROBES_TO_DOWN):
            assert health.ready
            await health.probe()
        await health.probe()
        assert (health.ready, asked) == (False, 2)
        thaw.set()
        await until_ready(health)


async def test_why_a_component_is_down_is_in_the_report_and_told_again_when_it_changes(
    health: Health, part: Part
) -> None:
    part.failure = ConnectionRefusedError(SECRET)
    await logged(health, 1)
    part.failure = Unavailable("SCHEMA_BEHIND", "Run migrate.")
    (line,) = await logged(health, 2)
    assert (line["event"], line["message"]) == ("component_down", "Run migrate.")
    (told,) = health.report()["components"].values()  # type: ignore[attr-defined]
    assert (told["up"], told["reason"], told["message"]) == (False, "SCHEMA_BEHIND", "Run migrate.")
    part.failure = None
    await logged(health, 1)
    (told,) = health.report()["components"].values()  # type: ignore[attr-defined]
    assert set(told) == {"up", "required", "since"}
