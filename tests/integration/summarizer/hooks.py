"""A webhook of the world's tenant, and the courier that serves it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from services.ledger.adapters.postgres_webhooks import PostgresOutbox, PostgresWebhooks
from services.ledger.domain.webhooks import Webhook, WebhookSecrets
from services.webhooks.courier import Courier
from services.webhooks.sender import Sender
from services.webhooks.signature import secret_text
from tests.integration.ledger.receivers import Receiver
from tests.integration.summarizer.conftest import World

_SECRETS = WebhookSecrets("p" * 32)
_HOOK = "0123456789abcdef"
_TYPES = ("job.succeeded", "job.failed", "job.cancelled", "batch.ended")


@contextlib.asynccontextmanager
async def hooked(world: World, receiver: Receiver) -> AsyncIterator[str]:
    """The receiver is told how jobs end, as the secret says."""
    url = f"http://127.0.0.1:{receiver.port}/"
    await PostgresWebhooks(world.ledger.pool).add(Webhook(world.tenant, _HOOK, url, datetime.now(UTC), _TYPES))
    courier = Courier(
        PostgresOutbox(world.ledger.pool, _SECRETS),
        Sender(allow_private=True),
        clock=lambda: datetime.now(UTC),
        interval_s=0.1,
        retry_s=0.1,
    )
    running = asyncio.create_task(courier.run())
    try:
        yield secret_text(_SECRETS.of(world.tenant, _HOOK))
    finally:
        running.cancel()
        await asyncio.wait([running])


async def heard(receiver: Receiver, count: int) -> bool:
    """Whether so many messages came."""
    return len(receiver.got) >= count
