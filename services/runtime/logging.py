"""JSON logs on stdout, one object a line, each with the request and trace it belongs to."""

import io
import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import structlog
from prometheus_client import Counter

from services.runtime import call

_LOST = Counter("pagemesh_log_lines_lost", "Lines that could not be written.")


class _Stdout(io.TextIOBase):
    """Standard output as it is when a line is written. A line that cannot be written, on a full disk, is counted and
    lost: the call that it tells of goes on."""

    torn = False

    def write(self, text: str) -> int:
        try:
            sys.stdout.write(f"\n{text}" if self.torn else text)
            sys.stdout.flush()
            self.torn = False
        except OSError:
            self.torn = True
            _LOST.inc()
        return len(text)


_STDOUT = _Stdout()


def configure(service: str, level: str) -> None:
    """Sets structlog and the standard library's logging to one JSON stream."""
    shared: list[structlog.types.Processor] = [_bind(service), structlog.processors.format_exc_info]
    encode = json.JSONEncoder(default=repr).encode  # one for all lines: json.dumps would make one for each
    render = structlog.processors.JSONRenderer(serializer=lambda event, **_: encode(event))
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _STDOUT)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_STDOUT)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    # Libraries log at INFO what belongs to DEBUG here, and some of it carries what they were given.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _bind(service: str) -> structlog.types.Processor:
    """What each line has besides its own; one function, because each of a chain costs every call."""

    def bind(_: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["level"] = level
        event["timestamp"] = f"{datetime.now(UTC).isoformat()[:-6]}Z"
        event["service"] = service
        current = call.of_task()
        if current is None:
            return event
        event.setdefault("request_id", current.request_id)
        event.setdefault("trace_id", current.trace.trace_id)
        if current.identity is not None:
            event.setdefault("tenant", current.identity.tenant)
            event.setdefault("actor", current.identity.actor)
        return event

    return bind
