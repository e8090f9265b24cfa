"""How much a provider takes in a minute: buckets of tokens and of requests, which all replicas share."""

from dataclasses import dataclass
from typing import Protocol

MINUTE_MS = 60_000.0
MAX_CLOSED_S = 300.0
"""A provider that says "not before" is believed for so long at most."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a model may be sent in a minute; 0 means that nobody bounds it."""

    tokens_per_minute: int = 0
    requests_per_minute: int = 0


NO_LIMIT = Rate()


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is left of a minute's worth, as it was at `at_ms`. It may be less than nothing: what is taken is reserved,
    and whoever takes more than there is waits until it has come in. `closed_ms` is until when nobody is let through."""

    tokens: float
    requests: float
    at_ms: float
    closed_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Taken:
    """Whether it was reserved, and how long to wait: before the call, or before it makes sense to ask again."""

    reserved: bool
    wait_s: float


class Rates(Protocol):
    """The buckets, by model. None of this raises: where the shared buckets are away, those of the process count."""

    async def take(self, model: str, rate: Rate, *, tokens: int, most_wait_s: float) -> Taken:
        """Reserves a request of so many tokens, unless that would mean to wait for longer than `most_wait_s`."""
        ...

    async def give_back(self, model: str, rate: Rate, *, tokens: int, requests: int = 0) -> None:
        """Puts back what was reserved and not used; less than nothing takes what was used beyond."""
        ...

    async def close(self, model: str, rate: Rate, *, for_s: float) -> None:
        """Lets nobody through for a while, at most MAX_CLOSED_S."""
        ...


def now_at(bucket: Bucket | None, rate: Rate, now_ms: float) -> Bucket:
    """The bucket with what has come in since; a full one for none. It holds a minute's worth."""
    if bucket is None:
        return Bucket(rate.tokens_per_minute, rate.requests_per_minute, now_ms)
    share = max(0.0, now_ms - bucket.at_ms) / MINUTE_MS
    return Bucket(
        min(rate.tokens_per_minute, bucket.tokens + share * rate.tokens_per_minute),
        min(rate.requests_per_minute, bucket.requests + share * rate.requests_per_minute),
        now_ms,
        # Also where the clock was set back.
        min(bucket.closed_ms, now_ms + 1000 * MAX_CLOSED_S),
    )


def wait_ms(bucket: Bucket, rate: Rate, tokens: int, requests: int) -> float:
    """How long until so much is there. What is larger than a minute's worth waits for a full bucket."""
    wait = max(0.0, bucket.closed_ms - bucket.at_ms)
    for per_minute, left, wanted in (
        (rate.tokens_per_minute, bucket.tokens, tokens),
        (rate.requests_per_minute, bucket.requests, requests),
    ):
        if per_minute:
            wait = max(wait, (min(wanted, per_minute) - left) * MINUTE_MS / per_minute)
    return wait


def less(bucket: Bucket, rate: Rate, tokens: int, requests: int) -> Bucket:
    """The bucket without so much; never more than full."""
    return Bucket(
        min(rate.tokens_per_minute, bucket.tokens - tokens) if rate.tokens_per_minute else 0.0,
        min(rate.requests_per_minute, bucket.requests - requests) if rate.requests_per_minute else 0.0,
        bucket.at_ms,
        bucket.closed_ms,
    )
