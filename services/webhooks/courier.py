"""Delivers the messages of an outbox: at least once, signed, with retries that end."""

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from prometheus_client import Counter

from services.runtime.errors import PagemeshError
from services.webhooks.sender import Sender, Sent
from services.webhooks.signature import signature

LEASE = timedelta(seconds=60)
"""How long a message that was taken is left to its taker; more than an attempt takes."""
MOST_AT_ONCE = 64
MOST_OF_TENANT = 4
"""Messages of one tenant that are on their way from one courier: its receivers may hang, and others go on."""
ROUND_TIMEOUT_S = 45.0
LONGEST_PAUSE_S = 3600.0
KEPT_FOR = timedelta(days=7)
"""How long the fate of a message can be looked up in the outbox."""

_DELIVERIES = Counter("pagemesh_webhook_deliveries", "Attempts to deliver a message, by how they ended.", ["outcome"])

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Message:
    """A message to one receiver. `message_id` is the same at each attempt, by which receivers tell a second one.

    `url` is empty where the receiver is gone; `attempts` counts the one that is about to be made.
    """

    tenant: str
    message_id: str
    url: str
    secret: bytes
    body: bytes
    attempts: int


class Outbox(Protocol):
    """Where messages wait. Each method is one transaction and may raise Unavailable."""

    async def take(
        self, now: datetime, until: datetime, limit: int, *, each: int, busy: Collection[str] = ()
    ) -> Sequence[Message]:
        """Up to `limit` messages that are due, `each` of one tenant at most and none of the tenants that are `busy`.
        They are counted as attempted and due again at `until`: other couriers leave them alone until then, and one
        whose courier dies is taken up again."""
        ...

    async def delivered(self, message: Message, now: datetime) -> None:
        """The message has arrived."""
        ...

    async def failed(self, message: Message, failure: str, *, again: datetime) -> None:
        """The attempt failed; the next is due then."""
        ...

    async def dead(self, message: Message, failure: str, now: datetime) -> None:
        """The message is given up."""
        ...

    async def forget(self, before: datetime, limit: int) -> int:
        """Removes up to `limit` messages that ended before then; answers how many."""
        ...


class Courier:
    """Looks for messages every `interval_s`. Several couriers, in several processes, share the work.

    Pauses grow from `retry_s` by the factor 2 up to an hour, each shortened by up to half at random. After
    `most_attempts` a message is given up.
    """

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        *,
        clock: Callable[[], datetime],
        interval_s: float = 1.0,
        retry_s: float = 5.0,
        most_attempts: int = 12,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._interval_s = interval_s
        self._retry_s = retry_s
        self._most_attempts = most_attempts

    async def run(self) -> None:
        """Works until cancelled; what fails is tried again. A tenant's next messages are taken when all that were taken
        before have been attempted, those of others meanwhile."""
        loop = asyncio.get_running_loop()
        flying: dict[asyncio.Task[None], str] = {}
        forget_at = loop.time()
        try:
            while True:
                try:
                    async with asyncio.timeout(ROUND_TIMEOUT_S):
                        for message in await self._take(MOST_AT_ONCE - len(flying), set(flying.values())):
                            flying[asyncio.create_task(self._attempt(message))] = message.tenant
                        if loop.time() >= forget_at:
                            await self._outbox.forget(self._clock() - KEPT_FOR, 1000)
                            forget_at = loop.time() + self._interval_s
                except (PagemeshError, TimeoutError) as exc:
                    _tell_failure(exc)
                if not flying:
                    await asyncio.sleep(self._interval_s)
                    continue
                await asyncio.wait(flying, timeout=self._interval_s, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in flying if task.done()]:
                    del flying[task]
                    if isinstance(error := task.exception(), PagemeshError):
                        _tell_failure(error)  # nobody knows that it was attempted: it is due again when its lease ends
                    elif error is not None:
                        raise error
        finally:
            for task in flying:
                task.cancel()
            if flying:
                await asyncio.wait(flying)

    async def round(self) -> int:
        """Attempts messages that are due, up to MOST_AT_ONCE of them at once; answers how many."""
        messages = await self._take(MOST_AT_ONCE, ())
        async with asyncio.TaskGroup() as attempts:
            for message in messages:
                attempts.create_task(self._attempt(message))
        return len(messages)

    async def _take(self, limit: int, busy: Collection[str]) -> Sequence[Message]:
        if not limit:
            return ()
        now = self._clock()
        return await self._outbox.take(now, now + LEASE, limit, each=MOST_OF_TENANT, busy=busy)

    async def _attempt(self, message: Message) -> None:
        if not message.url:
            sent = Sent("the webhook was deleted", final=True)
        else:
            sent = await self._sender.post(message.url, self._headers(message), message.body)
        now = self._clock()
        if not sent.failure:
            _DELIVERIES.labels("delivered").inc()
            await self._outbox.delivered(message, now)
        elif sent.final or message.attempts >= self._most_attempts:
            _DELIVERIES.labels("dead").inc()
            log.warning("webhook_dead", tenant=message.tenant, message_id=message.message_id, failure=sent.failure)
            await self._outbox.dead(message, sent.failure, now)
        else:
            _DELIVERIES.labels("failed").inc()
            await self._outbox.failed(message, sent.failure, again=now + self.pause(message.attempts))

    def pause(self, attempts: int) -> timedelta:
        """How long to wait after so many attempts."""
        longest_s = min(LONGEST_PAUSE_S, self._retry_s * 2.0 ** min(attempts - 1, 30))
        return timedelta(seconds=longest_s * random.uniform(0.5, 1.0))

    def _headers(self, message: Message) -> dict[str, str]:
        timestamp = int(self._clock().timestamp())
        return {
            "Content-Type": "application/json",
            "User-Agent": "pagemesh",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(message.secret, message.message_id, timestamp, message.body),
        }


def _tell_failure(error: PagemeshError | TimeoutError) -> None:
    log.warning("webhook_round_failed", error=getattr(error, "reason", type(error).__name__))
