"""Webhooks and the messages to them in memory: the same promises as the ones in Postgres."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from services.ledger.domain.values import Cursor
from services.ledger.domain.webhook_messages import Delivery, DeliveryState, Told, waiting_anew
from services.ledger.domain.webhooks import MOST_WEBHOOKS, Webhook

GONE = "the webhook was deleted"


@dataclass
class MemoryWebhooks:
    """WebhookStore."""

    hooks: dict[tuple[str, str], Webhook] = field(default_factory=dict)
    deleted: set[tuple[str, str]] = field(default_factory=set)
    deliveries: dict[tuple[str, UUID], Delivery] = field(default_factory=dict)

    async def add(self, webhook: Webhook) -> bool:
        if len(self.living(webhook.tenant)) >= MOST_WEBHOOKS:
            return False
        self.hooks[webhook.tenant, webhook.webhook_id] = webhook
        return True

    async def list(self, tenant: str, *, after: str, limit: int) -> Sequence[Webhook]:
        living = sorted(self.living(tenant), key=lambda hook: hook.webhook_id)
        return [hook for hook in living if hook.webhook_id > after][:limit]

    async def delete(self, tenant: str, webhook_id: str, now: datetime) -> bool:
        if (tenant, webhook_id) not in self.hooks:
            return False
        self.deleted.add((tenant, webhook_id))
        for key, delivery in self.deliveries.items():
            if delivery.webhook_id == webhook_id and delivery.state is DeliveryState.PENDING:
                self.deliveries[key] = replace(delivery, state=DeliveryState.DEAD, end_time=now, last_failure=GONE)
        return True

    def living(self, tenant: str) -> Sequence[Webhook]:
        """Those of the tenant that were not deleted."""
        return [hook for key, hook in self.hooks.items() if key[0] == tenant and key not in self.deleted]


class MemoryDeliveries:
    """DeliveryStore, of the messages of MemoryWebhooks."""

    def __init__(self, webhooks: MemoryWebhooks) -> None:
        self._webhooks = webhooks

    async def wanted(self, tenant: str) -> frozenset[str]:
        return frozenset(name for hook in self._webhooks.living(tenant) for name in hook.event_types)

    async def write(self, tenant: str, told: Sequence[Told], now: datetime) -> int:
        before = len(self._webhooks.deliveries)
        for hook in self._webhooks.living(tenant):
            for one in told:
                if one.event_type in hook.event_types:
                    digest = hashlib.md5(f"{hook.webhook_id}/{one.event_id}".encode(), usedforsecurity=False)
                    new = Delivery(
                        tenant=tenant,
                        delivery_id=UUID(hex=digest.hexdigest()),
                        webhook_id=hook.webhook_id,
                        event_type=one.event_type,
                        body=one.body,
                        state=DeliveryState.PENDING,
                        attempts=0,
                        last_failure="",
                        create_time=now,
                        due_time=now,
                        end_time=None,
                    )
                    self._webhooks.deliveries.setdefault((tenant, new.delivery_id), new)
        return len(self._webhooks.deliveries) - before

    async def list(
        self, tenant: str, state: DeliveryState | None, *, after: Cursor | None, limit: int
    ) -> Sequence[Delivery]:
        found = sorted(
            (d for d in self._webhooks.deliveries.values() if d.tenant == tenant and state in (None, d.state)),
            key=lambda d: (d.create_time, d.delivery_id),
            reverse=True,
        )
        behind = [
            d for d in found if after is None or (d.create_time, d.delivery_id) < (after.occur_time, after.event_id)
        ]
        return behind[:limit]

    async def again(self, tenant: str, delivery_id: UUID, now: datetime) -> tuple[Delivery, bool] | None:
        delivery = self._webhooks.deliveries.get((tenant, delivery_id))
        if delivery is None:
            return None
        living = (tenant, delivery.webhook_id) not in self._webhooks.deleted
        if delivery.state is DeliveryState.PENDING or not living:
            return delivery, False
        self._webhooks.deliveries[tenant, delivery_id] = waiting_anew(delivery, now)
        return self._webhooks.deliveries[tenant, delivery_id], True
