"""How long a document is kept."""

import datetime as dt
from dataclasses import dataclass
from enum import IntEnum

from services.runtime.errors import FieldViolation, InvalidArgument

EPHEMERAL_FOR = dt.timedelta(hours=1)
"""The longest that an ephemeral document is kept, whether or not anything was made of it."""
TEMPORARY_FOR = dt.timedelta(hours=24)
KEPT_FOR = dt.timedelta(days=365)
"""Where a kept document names no time."""
MOST_AHEAD = dt.timedelta(days=366)
"""A year ahead, also where a leap day is in it."""


class Retention(IntEnum):
    """From the shortest to the longest."""

    EPHEMERAL = 1
    """Until something was made of it."""
    TEMPORARY = 2
    """A day from its last upload."""
    KEPT = 3
    """Until a time that was given, or a year."""


@dataclass(frozen=True, slots=True)
class Term:
    """How a document is kept, and when it is erased at the latest, in UTC."""

    retention: Retention
    expire_time: dt.datetime

    def longer(self, other: "Term") -> "Term":
        """What holds where the same bytes were uploaded under both."""
        return Term(max(self.retention, other.retention), max(self.expire_time, other.expire_time))


FOR_EVER = Term(Retention.KEPT, dt.datetime.max.replace(tzinfo=dt.UTC))


def term_for(
    retention: Retention | None, expire_time: dt.datetime | None, *, now: dt.datetime, field: str = "expire_time"
) -> Term:
    """The term that is asked for; None is the default of each. `field` is where the request names the time.

    Raises InvalidArgument EXPIRE_TIME_WITHOUT_KEPT and EXPIRE_TIME_OUT_OF_RANGE.
    """
    if retention is Retention.KEPT:
        if expire_time is not None and not now < expire_time <= now + MOST_AHEAD:
            raise _refused(field, "EXPIRE_TIME_OUT_OF_RANGE", "The time must be ahead, by at most a year.")
        return Term(Retention.KEPT, expire_time or now + KEPT_FOR)
    if expire_time is not None:
        raise _refused(
            field,
            "EXPIRE_TIME_WITHOUT_KEPT",
            "Only a document with RETENTION_KEPT has a time of one's own. Ask for it.",
        )
    if retention is Retention.EPHEMERAL:
        return Term(Retention.EPHEMERAL, now + EPHEMERAL_FOR)
    return Term(Retention.TEMPORARY, now + TEMPORARY_FOR)


@dataclass(frozen=True, slots=True)
class Change:
    """What an update asks for: which of the two it names, and what they are to be; None is the default."""

    names_retention: bool
    names_expire_time: bool
    retention: Retention | None
    expire_time: dt.datetime | None

    def applied(self, term: Term, *, now: dt.datetime) -> Term:
        """The term after it. Raises InvalidArgument NOTHING_TO_UPDATE and what `term_for` raises."""
        if not self.names_retention and not self.names_expire_time:
            message = "Name what is to change: retention, expire_time or both."
            raise _refused("update_mask", "NOTHING_TO_UPDATE", message)
        retention = self.retention if self.names_retention else term.retention
        expire_time = self.expire_time if self.names_expire_time else None
        return term_for(retention, expire_time, now=now, field="document.expire_time")


def _refused(field: str, reason: str, message: str) -> InvalidArgument:
    return InvalidArgument(reason, message, fields=[FieldViolation(field, message)])
