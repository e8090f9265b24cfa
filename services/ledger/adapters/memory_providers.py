"""Identity providers, their keys, and the users that their tokens name, in memory."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from services.ledger.adapters.memory import MemoryLedger
from services.ledger.domain import refusals
from services.ledger.domain.identity_providers import IdentityProvider, StandingUser
from services.runtime.errors import Unavailable


class MemoryProviders:
    """ProviderStore."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger
        self._providers: dict[str, IdentityProvider] = {}

    async def add(self, provider: IdentityProvider) -> None:
        self._ledger.check_tenant(provider.tenant)
        if sum(p.tenant == provider.tenant for p in self._providers.values()) >= refusals.MOST_PROVIDERS:
            raise refusals.too_many_providers()
        taken = {(p.issuer, p.audience) for p in self._providers.values()}
        if (provider.issuer, provider.audience) in taken:
            raise refusals.provider_exists()
        self._providers[provider.provider_id] = provider

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[IdentityProvider]:
        found = [p for p in self._providers.values() if p.tenant == tenant and p.provider_id > after]
        return sorted(found, key=lambda p: p.provider_id)[:limit]

    async def delete(self, tenant: str, provider_id: str) -> bool:
        found = self._providers.get(provider_id)
        if found is None or found.tenant != tenant:
            return False
        del self._providers[provider_id]
        return True

    async def find(self, issuer: str, audiences: Sequence[str]) -> Sequence[IdentityProvider]:
        return [p for p in self._providers.values() if p.issuer == issuer and p.audience in audiences][:2]


class MemoryStandingUsers:
    """StandingUserStore. `users` are by tenant and address."""

    def __init__(self) -> None:
        self.users: dict[tuple[str, str], StandingUser] = {}

    async def by_email(self, tenant: str, email: str) -> StandingUser | None:
        return self.users.get((tenant, email))

    async def by_id(self, tenant: str, user_id: str) -> StandingUser | None:
        found = (user for (whose, _), user in self.users.items() if whose == tenant and user.user_id == user_id)
        return next(found, None)


class MemoryKeySource:
    """KeySource. `published` are the keys by issuer; who is not there cannot be reached."""

    def __init__(self) -> None:
        self.published: dict[str, list[dict[str, Any]]] = {}
        self.fetches = 0

    async def fetch(self, issuer: str) -> Sequence[Mapping[str, Any]]:
        self.fetches += 1
        await asyncio.sleep(0)
        if issuer not in self.published:
            raise Unavailable("ISSUER_UNREACHABLE", "it cannot be reached.", retry_after_s=5.0)
        return self.published[issuer]
