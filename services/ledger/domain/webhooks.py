"""Where a tenant is told of what happens."""

import hashlib
import hmac
import secrets
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.ledger.domain import paging
from services.ledger.domain.checks import invalid_field
from services.ledger.domain.ports import Clock
from services.ledger.domain.values import Caller
from services.runtime.errors import NotFound, ResourceExhausted

DEFAULT_PAGE = 50
MOST_WEBHOOKS = 20
"""Most webhooks of one tenant: each alert is a message to each of them."""
MONEY_EVENTS = ("budget.threshold_reached", "cost.anomaly_detected")
"""What a webhook is told of that says nothing else."""
_ID_CHARACTERS = string.digits + string.ascii_lowercase


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that a tenant wants messages at."""

    tenant: str
    webhook_id: str
    url: str
    create_time: datetime
    event_types: tuple[str, ...] = MONEY_EVENTS

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"webhooks/{self.webhook_id}"


class WebhookStore(Protocol):
    """Webhooks. Each method is one transaction and may raise Unavailable."""

    async def add(self, webhook: Webhook) -> bool:
        """Keeps the webhook; False where the tenant has MOST_WEBHOOKS. FailedPrecondition TENANT_UNKNOWN."""
        ...

    async def list(self, tenant: str, *, after: str, limit: int) -> Sequence[Webhook]:
        """Up to `limit` webhooks of the tenant by id, those after the id `after`."""
        ...

    async def delete(self, tenant: str, webhook_id: str, now: datetime) -> bool:
        """Ends the webhook and gives up what it was still to be told; False where the tenant never had it."""
        ...


class WebhookSecrets:
    """The secret of each webhook, computed from the pepper: none is stored, so none can be read out of the database."""

    def __init__(self, pepper: str) -> None:
        self._pepper = pepper.encode()

    def of(self, tenant: str, webhook_id: str) -> bytes:
        """32 bytes."""
        return hmac.new(self._pepper, f"webhook {tenant}/{webhook_id}".encode(), hashlib.sha256).digest()


class Webhooks:
    """The webhooks of each tenant. `fault_of_url` says what is wrong with an address; empty where nothing is."""

    def __init__(
        self, *, store: WebhookStore, hooks: WebhookSecrets, clock: Clock, fault_of_url: Callable[[str], str]
    ) -> None:
        self._store = store
        self._secrets = hooks
        self._clock = clock
        self._fault_of_url = fault_of_url

    async def create(self, caller: Caller, url: str, event_types: Sequence[str] = ()) -> tuple[Webhook, bytes]:
        """Makes a webhook that is told of these types, or of MONEY_EVENTS; answers it and its secret.

        Raises InvalidArgument, ResourceExhausted TOO_MANY_WEBHOOKS, FailedPrecondition TENANT_UNKNOWN.
        """
        fault = self._fault_of_url(url)
        if fault:
            raise invalid_field("url", fault)
        webhook_id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(16))
        webhook = Webhook(caller.tenant, webhook_id, url, self._clock(), tuple(event_types) or MONEY_EVENTS)
        if not await self._store.add(webhook):
            raise ResourceExhausted(
                "TOO_MANY_WEBHOOKS", f"A tenant has at most {MOST_WEBHOOKS} webhooks. Delete one that is not needed."
            )
        return webhook, self._secrets.of(caller.tenant, webhook_id)

    async def list(self, caller: Caller, page_size: int, page_token: str) -> tuple[Sequence[Webhook], str]:
        """One part of the webhooks, by id, and the token for the next. Raises InvalidArgument INVALID_PAGE_TOKEN."""
        size = page_size or DEFAULT_PAGE
        listed = f"webhooks of {caller.tenant}"
        after = paging.decode_text(page_token, listed) if page_token else ""
        found = await self._store.list(caller.tenant, after=after, limit=size + 1)
        if len(found) <= size:
            return found, ""
        return found[:size], paging.encode_text(found[size - 1].webhook_id, listed)

    async def delete(self, caller: Caller, webhook_id: str) -> None:
        """Ends a webhook; again, it does nothing. Raises NotFound WEBHOOK_NOT_FOUND."""
        if not await self._store.delete(caller.tenant, webhook_id, self._clock()):
            raise NotFound("WEBHOOK_NOT_FOUND", "There is no such webhook.")
