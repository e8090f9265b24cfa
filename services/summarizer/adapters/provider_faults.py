"""What went wrong with a provider's HTTP API, in our words.

`metadata` says what the caller has to know about its money: `sent` is "no" only where the request certainly never
left, `billed` is "no" where the provider refused it, and tokens are told where they are known. Nothing that the
provider wrote is passed on: it may repeat the document.
"""

import datetime as dt
import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from services.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    PagemeshError,
    ResourceExhausted,
    Unavailable,
)
from services.summarizer.domain.values import TokenCount

MAX_RETRY_AFTER_S = 3_600.0
"""A longer wait is not waited for; the number only has to stay sane."""

_NOT_SENT = {"sent": "no", "billed": "no"}


def no_connection(provider: str) -> PagemeshError:
    """Unavailable PROVIDER_UNAVAILABLE for a request that never left."""
    return Unavailable(
        "PROVIDER_UNAVAILABLE", f"{provider} cannot be reached.", metadata={"provider": provider, **_NOT_SENT}
    )


def cut_off(provider: str) -> PagemeshError:
    """Unavailable PROVIDER_UNAVAILABLE for an answer that broke off or never came."""
    return Unavailable(
        "PROVIDER_UNAVAILABLE", f"{provider} broke off before its answer was whole.", metadata={"provider": provider}
    )


def timed_out(provider: str, timeout_s: float) -> PagemeshError:
    """DeadlineExceeded PROVIDER_TIMEOUT."""
    return DeadlineExceeded(
        "PROVIDER_TIMEOUT", f"{provider} did not answer within {timeout_s:g} s.", metadata={"provider": provider}
    )


def unreadable(provider: str, why: str, tokens: TokenCount | None) -> PagemeshError:
    """Unavailable PROVIDER_INVALID_ANSWER for an answer that was paid for and cannot be used."""
    metadata = {"provider": provider}
    if tokens is not None:
        metadata |= {"input_tokens": str(tokens.input_tokens), "output_tokens": str(tokens.output_tokens)}
        if tokens.pages:
            metadata["pages"] = str(tokens.pages)
    return Unavailable("PROVIDER_INVALID_ANSWER", f"{provider}'s answer cannot be used: {why}.", metadata=metadata)


def refused(provider: str, status: int, headers: Mapping[str, str], *, now_s: Callable[[], float]) -> PagemeshError:
    """The error for an HTTP status that is no success. `now_s` is Unix time.

    FailedPrecondition PROVIDER_CREDENTIAL is the operator's to mend: callers, whose own key is fine, must not read
    it as a refusal of theirs.
    """
    metadata = {"provider": provider, "status": str(status)}
    if _is_free(status):
        metadata["billed"] = "no"
    wait_s = retry_after_s(headers.get("retry-after"), now_s=now_s)
    if status == 429:
        return ResourceExhausted(
            "PROVIDER_RATE_LIMITED",
            f"{provider} takes no more requests for now.",
            retry_after_s=wait_s,
            metadata=metadata,
        )
    if status in (401, 402, 403):
        return FailedPrecondition(
            "PROVIDER_CREDENTIAL",
            f"{provider} refuses this deployment's credential (status {status}). Its operator has to look after it.",
            metadata=metadata,
        )
    if 400 <= status < 500 and status != 408:
        return InvalidArgument(
            "PROVIDER_REFUSED", f"{provider} refuses this request (status {status}).", metadata=metadata
        )
    return Unavailable(
        "PROVIDER_UNAVAILABLE", f"{provider} answered with status {status}.", retry_after_s=wait_s, metadata=metadata
    )


def _is_free(status: int) -> bool:
    """Whether the status says that no model worked on the request.

    A 4xx judges the request before any work (429 included), and a 503 says that it cannot be taken on (RFC 9110,
    15.6.4). A time-out (408, 504, 524) or a broken gateway (502, 520 to 523) may stand between us and an answer that
    was made and is charged, and a 500 may come from behind the model. Whatever else there is is not known to be free.
    """
    return status == 503 or (400 <= status < 500 and status != 408)


def retry_after_s(value: str | None, *, now_s: Callable[[], float]) -> float | None:
    """Seconds to wait by a Retry-After header: a number or an HTTP date (RFC 9110, 10.2.3); None where it says
    neither. Between 0 and 3,600."""
    if value is None:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        wait_s = moment.timestamp() - now_s()
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(wait_s) else None
