"""The errors that callers may see. Everything else is INTERNAL to them and a full story to the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, as a path such as `options.length`, and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """Whose limit was reached, such as `tenants/acme`, and which."""

    subject: str
    description: str


class PagemeshError(Exception):
    """A fault that the caller can understand; raised as one of its subclasses, each of which is one status code.

    `reason` is for machines (UPPER_SNAKE), `message` for people: what is wrong and what to do. Neither carries
    secrets or text of a document. `metadata` goes into google.rpc.ErrorInfo.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        fields: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
        quota: QuotaViolation | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.fields = tuple(fields)
        self.retry_after_s = retry_after_s
        self.quota = quota
        self.metadata: Mapping[str, str] = MappingProxyType(dict(metadata or {}))


class InvalidArgument(PagemeshError):
    """The request is wrong whatever the state of the world."""


class Unauthenticated(PagemeshError):
    """Nobody vouches for the caller."""


class PermissionDenied(PagemeshError):
    """The caller is known and may not."""


class NotFound(PagemeshError):
    """There is no such thing, or it belongs to somebody else."""


class AlreadyExists(PagemeshError):
    """The id is taken by something different."""


class FailedPrecondition(PagemeshError):
    """The request is right, but the thing it is about does not allow it."""


class OutOfRange(PagemeshError):
    """Past the end of what is there."""


class Aborted(PagemeshError):
    """Lost a race; the whole operation may be tried again."""


class ResourceExhausted(PagemeshError):
    """A limit, a budget or a queue is full."""


class Unimplemented(PagemeshError):
    """There is no such method."""


class Unavailable(PagemeshError):
    """Something that is needed is down; the same request may work later."""


class DeadlineExceeded(PagemeshError):
    """The caller's time ran out."""


class Cancelled(PagemeshError):
    """The caller hung up."""


class InternalError(PagemeshError):
    """A peer said INTERNAL or UNKNOWN; its own log has the story."""
