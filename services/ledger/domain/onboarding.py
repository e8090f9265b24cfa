"""A tenant's first day: it is made, it may get a budget, and it gets a key that can make all others."""

import re

from services.ledger.domain.checks import check_text, invalid_field
from services.ledger.domain.identity import KeyRing
from services.ledger.domain.keys import ApiKey
from services.ledger.domain.ports import Clock, TenantStore
from services.ledger.domain.values import Caller

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MOST_MICROS = 10**15
"""The largest amount of money that the contract can say."""


class Onboarding:
    """Lets tenants in. `scopes` are all that there are."""

    def __init__(self, *, tenants: TenantStore, keys: KeyRing, clock: Clock, scopes: frozenset[str]) -> None:
        self._tenants = tenants
        self._keys = keys
        self._clock = clock
        self._scopes = scopes

    async def admit(self, tenant: str, display_name: str, *, hard_budget_micros: int | None) -> tuple[ApiKey, str]:
        """Does what `prepare` does and makes a new key with all scopes; answers it and its credential."""
        await self.prepare(tenant, display_name, hard_budget_micros=hard_budget_micros)
        first = Caller(tenant, actor="bootstrap", scopes=self._scopes)
        return await self._keys.create(first, "admin", self._scopes, None)

    async def prepare(self, tenant: str, display_name: str, *, hard_budget_micros: int | None) -> None:
        """Makes the tenant where it does not exist, and sets or changes its hard budget where one is given.

        Raises InvalidArgument for an id, a name or a budget that cannot be.
        """
        if not _TENANT.fullmatch(tenant):
            raise invalid_field("tenant", "must be 1 to 63 of [0-9a-z-] and not begin with a hyphen")
        if len(display_name) > 100:
            raise invalid_field("display_name", "must have at most 100 characters")
        check_text(display_name, "display_name")
        if hard_budget_micros is not None and not 0 <= hard_budget_micros <= _MOST_MICROS:
            raise invalid_field("hard_budget_micros", f"must be between 0 and {_MOST_MICROS}")
        await self._tenants.ensure(tenant, display_name or tenant, self._clock())
        if hard_budget_micros is not None:
            await self._tenants.set_hard_budget(tenant, hard_budget_micros)
