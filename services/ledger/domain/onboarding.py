"""A tenant's first day: it is made, it may get a budget, and it gets a key that can make all others."""

from services.ledger.domain import refusals
from services.ledger.domain.checks import check_name, invalid_field
from services.ledger.domain.directory import check_id, domain_of, email_of
from services.ledger.domain.identity_ports import TenantDirectory, UserStore
from services.ledger.domain.key_ring import KeyRing
from services.ledger.domain.keys import ApiKey, random_key_id
from services.ledger.domain.members import Changes, Tenant, User
from services.ledger.domain.plans import FREE
from services.ledger.domain.ports import Clock, TenantStore
from services.ledger.domain.roles import Role
from services.ledger.domain.values import Caller

_MOST_MICROS = 10**15
"""The largest amount of money that the contract can say."""


class Onboarding:
    """Lets tenants in. `scopes` are all that there are."""

    def __init__(
        self,
        *,
        tenants: TenantStore,
        directory: TenantDirectory,
        users: UserStore,
        keys: KeyRing,
        clock: Clock,
        scopes: frozenset[str],
    ) -> None:
        self._tenants = tenants
        self._directory = directory
        self._users = users
        self._keys = keys
        self._clock = clock
        self._scopes = scopes

    async def admit(
        self, tenant: str, display_name: str, *, hard_budget_micros: int | None, plan: str = "", admin_email: str = ""
    ) -> tuple[ApiKey, str]:
        """Does what `prepare` does and makes a new key with all scopes; answers it and its credential. The key is that
        of the admin with that address, where one is given."""
        user = await self.prepare(
            tenant, display_name, hard_budget_micros=hard_budget_micros, plan=plan, admin_email=admin_email
        )
        return await self._first_key(tenant, user)

    async def prepare(
        self, tenant: str, display_name: str, *, hard_budget_micros: int | None, plan: str = "", admin_email: str = ""
    ) -> User | None:
        """Makes the tenant where it does not exist, on a plan without limits, and sets or changes its hard budget and
        its plan where they are given. Makes the user with the address that is given an active admin; answers that user.

        Raises InvalidArgument for an id, a name, an address or a budget that cannot be, NotFound PLAN_NOT_FOUND.
        """
        check_id(tenant, "tenant")
        if display_name:
            check_name(display_name, "display_name")
        email = email_of(admin_email, "admin_email") if admin_email else ""
        if hard_budget_micros is not None and not 0 <= hard_budget_micros <= _MOST_MICROS:
            raise invalid_field("hard_budget_micros", f"must be between 0 and {_MOST_MICROS}")
        await self._tenants.ensure(tenant, display_name or tenant, self._clock())
        if hard_budget_micros is not None:
            await self._tenants.set_hard_budget(tenant, hard_budget_micros)
        if plan:
            await self._directory.update(tenant, Changes(plan=plan), self._clock())
        return await self._admin(tenant, email) if email else None

    async def create(
        self, tenant_id: str, display_name: str, domain: str, *, plan: str, admin_email: str
    ) -> tuple[Tenant, ApiKey, str]:
        """Makes a tenant that is not there yet, on the free plan unless another is named, with a first key that has all
        scopes and is its admin's where an address is given.

        Raises InvalidArgument, AlreadyExists TENANT_EXISTS or DOMAIN_TAKEN, NotFound PLAN_NOT_FOUND.
        """
        check_id(tenant_id, "tenant_id")
        if display_name:
            check_name(display_name, "display_name")
        email = email_of(admin_email, "admin_email") if admin_email else ""
        now = self._clock()
        tenant = Tenant(tenant_id, display_name or tenant_id, domain_of(domain), True, plan or FREE, now, now)
        await self._directory.add(tenant)
        user = await self._admin(tenant_id, email) if email else None
        key, credential = await self._first_key(tenant_id, user)
        return tenant, key, credential

    async def _admin(self, tenant: str, email: str) -> User:
        """The user with that address, who is an active admin from here on."""
        known = await self._users.with_email(tenant, email)
        now = self._clock()
        if known is None:
            user = User(tenant, random_key_id(), email, email[:100], Role.ADMIN, True, now, now)
            await self._users.add(user)
            return user
        if known.active and known.role is Role.ADMIN:
            return known
        changed = await self._users.update(tenant, known.user_id, Changes(role=Role.ADMIN, active=True), now)
        if changed is None:
            raise refusals.user_not_found()
        return changed

    async def _first_key(self, tenant: str, user: User | None) -> tuple[ApiKey, str]:
        first = Caller(tenant, actor="bootstrap", scopes=self._scopes)
        user_id = "" if user is None else user.user_id
        return await self._keys.create(first, "admin", self._scopes, None, user=user_id)
