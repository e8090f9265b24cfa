"""Faults that nobody foresaw reach a tracker over HTTP, and nothing that was in them does."""

import logging as standard
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from pydantic import ValidationError

from pagemesh_cli.stack.ports import pick_free_port
from services.runtime import logging
from services.runtime.call import Call, Identity, acting_as, enter
from services.telemetry import faults
from services.telemetry import start as telemetry
from services.telemetry.context import TraceContext
from services.telemetry.settings import TelemetrySettings
from tests.fakes.fault_tracker import FaultTracker, tracking

METHOD = "/pagemesh.extractor.v1.ExtractorService/GetDocument"
SECRET = "Xylophonqtext"
ADDRESS = "198.51.100.23"
SOMEBODY = Identity("acme", "apiKeys/Xylophonqkey", "", frozenset())


@pytest.fixture
def tracker() -> Iterator[FaultTracker]:
    with tracking() as running:
        yield running


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, kept = standard.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield
    telemetry.close()
    structlog.configure(**kept)
    root.handlers[:] = handlers
    root.setLevel(level)


def settings_of(dsn: str) -> TelemetrySettings:
    return TelemetrySettings.model_validate({"sentry_dsn": dsn})


def telling(dsn: str) -> None:
    logging.configure("extractor", "INFO")
    telemetry.start("extractor", settings_of(dsn))


def breaks(body: str) -> None:
    client = {"address": ADDRESS, "body": body}
    try:
        raise KeyError(f"{client} has no page")
    except KeyError as exc:
        raise ValueError(f"cannot read {body}") from exc


def in_a_call() -> None:
    with acting_as(SOMEBODY, request_id="request-12345"):
        enter(Call(METHOD, "request-12345", TraceContext("ab" * 16, "cd" * 8), peer="edge", identity=SOMEBODY))
        try:
            breaks(SECRET)
        except ValueError as exc:
            structlog.get_logger().error("internal_error", method=METHOD, body=SECRET, exc_info=exc)


def test_a_fault_says_where_and_whose_and_nothing_of_what_was_in_it(tracker: FaultTracker) -> None:
    telling(tracker.dsn)
    in_a_call()
    (event,) = tracker.events(1)
    assert event["tags"] == {
        "service": "extractor",
        "event": "internal_error",
        "method": METHOD,
        "request_id": "request-12345",
        "trace_id": "ab" * 16,
    }
    assert event["contexts"]["trace"]["trace_id"] == "ab" * 16
    cause, error = event["exception"]["values"]
    assert (cause["type"], error["type"]) == ("KeyError", "ValueError")
    last = error["stacktrace"]["frames"][-1]
    assert (last["filename"], last["function"]) == ("tests/unit/telemetry/test_faults.py", "breaks")
    assert last.keys() == {"filename", "function", "module", "lineno", "in_app"}
    for planted in (SECRET, "Xylophonq", ADDRESS, "cannot read", "127.0.0.1:", str(Path.cwd())):
        assert planted.encode() not in tracker.bodies[0].partition(b"\n")[2], planted


def test_what_breaks_outside_of_calls_and_in_libraries_is_told_too(tracker: FaultTracker) -> None:
    telling(tracker.dsn)
    try:
        breaks(SECRET)
    except ValueError:
        structlog.get_logger().exception(f"a sentence with {SECRET}")
        standard.getLogger("asyncio").exception("Task exception was never retrieved: %s", SECRET)
    ours, theirs = tracker.events(2)
    assert ours["tags"] == {"service": "extractor", "event": ""}
    assert theirs["tags"] == {"service": "extractor", "event": "asyncio"}
    assert not any(SECRET.encode() in body for body in tracker.bodies)


def test_what_was_foreseen_is_not_told(tracker: FaultTracker) -> None:
    telling(tracker.dsn)
    structlog.get_logger().error("provider_away", reason="PROVIDER_UNAVAILABLE")
    structlog.get_logger().warning("slow", exc_info=ValueError())
    structlog.get_logger().error("the_last_one", exc_info=ValueError())
    (event,) = tracker.events(1)
    assert event["tags"]["event"] == "the_last_one"


@pytest.mark.parametrize("how", ["absent", "refuses", "hangs"])
def test_a_tracker_that_does_not_take_them_holds_nobody_up(
    tracker: FaultTracker, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "_GRACE_S", 0.2)
    tracker.mode = {"absent": "ok", "refuses": "refuse", "hangs": "hang"}[how]
    telling(f"http://0123456789abcdef@127.0.0.1:{pick_free_port()}/1" if how == "absent" else tracker.dsn)
    for _ in range(300):  # three times what its queue holds
        in_a_call()
    if how != "absent":
        with tracker.come:
            assert tracker.come.wait_for(lambda: tracker.asked >= 1, 60)
    telemetry.close()
    assert tracker.bodies == []


def test_the_address_of_the_tracker_may_be_in_a_file(tmp_path: Path) -> None:
    dsn = "https://0123456789abcdef@errors.example.org/1"
    file = tmp_path / "dsn"
    file.write_text(f"{dsn}\n")
    settings = settings_of(str(file))
    assert settings.sentry_dsn is not None
    assert settings.sentry_dsn.get_secret_value() == dsn
    assert dsn not in repr(settings)
    assert settings_of("").sentry_dsn is None


@pytest.mark.parametrize("wrong", ["errors.example.org", "https://errors.example.org/1", "/no/such/file"])
def test_a_wrong_address_is_told_without_it(wrong: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings_of(wrong)
    (fault,) = refused.value.errors(include_input=False)
    assert wrong not in fault["msg"]
