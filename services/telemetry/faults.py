"""Faults that nobody foresaw, told to an error tracker that speaks Sentry's protocol. Imported only where one is set.

Whatever is logged as an error with its exception is told: what a call raised that is none of our errors, what broke in
a background task, what a library logged. An event is put together here out of what it may have, field by field: the
types of the exceptions and where they came from, the method, the ids of request and trace. Words of exceptions,
variables, bodies, headers and addresses are never looked at.

A tracker that is away, slow or refuses costs events and nothing else: they wait in a bounded queue of the library's.
"""

import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import sentry_sdk
import structlog
from prometheus_client import Counter
from sentry_sdk.types import Event, Hint

from services.runtime.call import of_task
from services.runtime.errors import PagemeshError

_QUEUE_EVENTS = 100
_GRACE_S = 2.0
_MAX_CHAIN = 5
_MAX_FRAMES = 50
_ROOT = f"{Path(__file__).resolve().parents[2]}/"
_ERRORS = ("error", "critical")
_EVENT_NAME = re.compile(r"[a-z0-9_]{1,64}")
"""Our own log lines have such names; anything else may be a sentence with something in it."""
_FIELDS = frozenset(
    ("event_id", "timestamp", "level", "platform", "release", "server_name", "exception", "tags", "contexts", "sdk")
)

_TOLD = Counter("pagemesh_faults", "Faults that nobody foresaw, told to the error tracker.")


class FaultTeller(logging.Handler):
    """Listens to both logs of a process: structlog's as one of its processors, the standard library's as a handler."""

    def __init__(self, service: str, dsn: str) -> None:
        super().__init__(logging.ERROR)
        self._service = service
        # It logs what it could not send, and is itself listened to here.
        logging.getLogger("sentry_sdk").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._client = sentry_sdk.Client(
            dsn=dsn,
            server_name=service,
            default_integrations=False,
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            include_local_variables=False,
            include_source_context=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            propagate_traces=False,
            send_client_reports=False,
            transport_queue_size=_QUEUE_EVENTS,
            before_send=_only_what_is_allowed,
        )

    def install(self) -> None:
        """From here on it hears of what is logged."""
        structlog.get_config()["processors"].insert(0, self.process)
        logging.getLogger().addHandler(self)

    def process(self, _: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """A processor of structlog, which changes nothing."""
        if level in _ERRORS and (error := _error_of(event.get("exc_info"))) is not None:
            name = str(event.get("event", ""))
            self.tell(error, name if _EVENT_NAME.fullmatch(name) else "")
        return event

    def emit(self, record: logging.LogRecord) -> None:
        """What a library logged."""
        if (error := _error_of(record.exc_info)) is not None:
            self.tell(error, record.name.replace(".", "_"))

    def tell(self, error: BaseException, event: str) -> None:
        """Queues one event for the tracker; where the queue is full, it is dropped."""
        tags = {"service": self._service, "event": event}
        call, contexts = of_task(), {}
        if call is not None:
            tags |= {"method": call.method, "request_id": call.request_id, "trace_id": call.trace.trace_id}
            contexts = {"trace": {"trace_id": call.trace.trace_id, "span_id": call.trace.span_id}}
        if isinstance(error, PagemeshError):
            tags["reason"] = error.reason
        told = {"level": "error", "exception": {"values": list(_chain(error))}, "tags": tags, "contexts": contexts}
        self._client.capture_event(cast(Event, told))
        _TOLD.inc()

    def stop(self) -> None:
        """Sends what is left, within a few seconds, and listens no more."""
        processors = structlog.get_config()["processors"]
        if self.process in processors:
            processors.remove(self.process)
        logging.getLogger().removeHandler(self)
        self._client.close(timeout=_GRACE_S)


def _error_of(given: Any) -> BaseException | None:
    """What `exc_info` of a log line stands for."""
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        given = given[1]
        return given if isinstance(given, BaseException) else None
    return sys.exc_info()[1] if given else None


def _chain(error: BaseException) -> Iterator[dict[str, object]]:
    """The exception and what it came from; the first cause first, as the protocol wants it."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and len(found) < _MAX_CHAIN and at not in found:
        found.append(at)
        if isinstance(at, BaseExceptionGroup):
            at = at.exceptions[0]
        else:
            at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    for each in reversed(found):
        frames = list(_frames(each.__traceback__))[-_MAX_FRAMES:]
        kind = type(each)
        yield {"type": kind.__qualname__, "module": kind.__module__, "stacktrace": {"frames": frames}}


def _frames(traceback: TracebackType | None) -> Iterator[dict[str, object]]:
    while traceback is not None:
        code, module = traceback.tb_frame.f_code, traceback.tb_frame.f_globals.get("__name__", "")
        path = code.co_filename
        yield {
            "filename": path.removeprefix(_ROOT) if path.startswith(_ROOT) else Path(path).name,
            "function": code.co_qualname,
            "module": str(module),
            "lineno": traceback.tb_lineno,
            "in_app": str(module).startswith("services."),
        }
        traceback = traceback.tb_next


def _only_what_is_allowed(event: Event, _: Hint) -> Event:
    """The library may add to an event, and its next version may add more: that goes."""
    return cast(Event, {name: value for name, value in event.items() if name in _FIELDS})
