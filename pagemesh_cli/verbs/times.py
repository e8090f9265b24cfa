"""Points in time and spans, as people type them."""

import datetime as dt
import re
from typing import Any

import typer

from pagemesh_cli.failures import ExitCode, Failure

_DURATION = re.compile(r"^(\d{1,6})([mhd])$")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> dt.datetime:
    """A point in time, UTC where it names no other zone: `12h` (ago), `2026-01-31`, `2026-01-31T08:00:00.25Z`.

    Raises BadParameter for anything else.
    """
    if (span := _span(text)) is not None:
        return dt.datetime.now(dt.UTC) - span
    return point(text, "12h, 2026-01-31 or 2026-01-31T08:00:00Z")


def point(text: str, examples: str = "2026-01-31 or 2026-01-31T08:00:00Z") -> dt.datetime:
    """The same without spans, for what lies ahead."""
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time. Try {examples}.") from error
    return at if at.tzinfo else at.replace(tzinfo=dt.UTC)


def duration(text: str) -> dt.timedelta:
    """`30m`, `12h`, `90d`. Raises Failure for anything else."""
    span = _span(text)
    if not span:
        raise Failure(f"{text!r} is no time span.", ExitCode.USAGE, "BAD_DURATION", advice="Try 30m, 12h or 90d.")
    return span


def when(what: str) -> Any:
    """An option that takes a moment."""
    told = (
        f"{what}: a time such as 2026-01-31T08:00:00Z, a day (both UTC unless they say otherwise), or 12h ago as 12h."
    )
    return typer.Option(parser=moment, metavar="TIME", help=told)


def _span(text: str) -> dt.timedelta | None:
    match = _DURATION.match(text)
    return dt.timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
