"""What a line of the log has, whoever writes it."""

import json
import logging as standard
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from services.runtime import call, logging
from services.runtime.call import Call, Identity
from services.telemetry.context import TraceContext


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, kept = standard.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**kept)
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_a_line_says_when_whose_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    # A task of its own: the call that is entered is nobody else's.
    logging.configure("ledger", "INFO")
    call.enter(
        Call("/a.B/C", "request-1", TraceContext("t", "s"), identity=Identity("acme", "users/u", "", frozenset()))
    )
    log = structlog.get_logger()
    log.debug("unheard")
    log.info("told", of=timedelta(seconds=1), tenant="other")
    try:
        raise ValueError("\N{SNOWMAN}")
    except ValueError:
        log.exception("broken")
    standard.getLogger("some.library").warning("careful: %s", 1)
    told, broken, careful = map(json.loads, capsys.readouterr().out.splitlines())
    made = datetime.fromisoformat(told.pop("timestamp"))
    assert abs(datetime.now(UTC) - made) < timedelta(hours=1)
    whose = {"service": "ledger", "request_id": "request-1", "trace_id": "t", "actor": "users/u"}
    assert told == {"event": "told", "level": "info", "of": repr(timedelta(seconds=1)), "tenant": "other", **whose}
    assert (broken["level"], broken["tenant"]) == ("error", "acme")
    assert "ValueError: \N{SNOWMAN}" in broken["exception"]
    assert (careful["event"], careful["level"], careful["logger"]) == ("careful: 1", "warning", "some.library")
