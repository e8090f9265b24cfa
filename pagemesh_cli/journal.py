"""What a supervisor in the background tells, in the shape of the services' own logs."""

import datetime as dt
import json
import sys

from pagemesh_cli.failures import Failure
from pagemesh_cli.output import Output


class Journal(Output):
    """Each thing that is told is one JSON object on stderr: `timestamp` (UTC), `level`, `service`, `event`."""

    def note(self, text: str, style: str = "") -> None:
        self._line("info", text)

    def warn(self, text: str) -> None:
        self._line("warning", text)

    def failure(self, failure: Failure) -> None:
        advice = f" {failure.advice}" if failure.advice else ""
        self._line("error", f"{failure.message}{advice}", reason=failure.reason)

    def _line(self, level: str, event: str, **more: str) -> None:
        timestamp = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
        line = {"timestamp": timestamp, "level": level, "service": "supervisor", "event": event, **more}
        sys.stderr.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stderr.flush()


def last_error(lines: str) -> str | None:
    """The event of the last line that a Journal wrote of a failure; None where there is none."""
    for line in reversed(lines.splitlines()):
        try:
            told = json.loads(line)
            if told["level"] == "error" and "reason" in told:
                return str(told["event"])
        except (ValueError, TypeError, KeyError):
            continue  # somebody else's line, such as a traceback's
    return None
