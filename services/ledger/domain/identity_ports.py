"""What the identity use cases need from outside, besides keys. Every method may also raise Unavailable or
DeadlineExceeded."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.ledger.domain.members import Changes, Project, Tenant, User
from services.ledger.domain.plans import Kind, Plan


class TenantDirectory(Protocol):
    """Tenants and plans, as their operator knows them."""

    async def add(self, tenant: Tenant) -> None:
        """Keeps a new tenant. AlreadyExists TENANT_EXISTS or DOMAIN_TAKEN, NotFound PLAN_NOT_FOUND."""
        ...

    async def find(self, tenant_id: str) -> Tenant | None:
        """The tenant of that id."""
        ...

    async def list(self, after: str, limit: int) -> Sequence[Tenant]:
        """Up to `limit` tenants with ids behind `after`, by id."""
        ...

    async def update(self, tenant_id: str, changes: Changes, now: datetime) -> Tenant | None:
        """Changes display name, domain (empty: none), active or plan; None where there is no such tenant.

        AlreadyExists DOMAIN_TAKEN, NotFound PLAN_NOT_FOUND.
        """
        ...

    async def plans(self) -> Sequence[Plan]:
        """All plans, by id."""
        ...


class ProjectStore(Protocol):
    """Projects."""

    async def add(self, project: Project) -> None:
        """Keeps a new project. AlreadyExists PROJECT_EXISTS, FailedPrecondition TENANT_UNKNOWN."""
        ...

    async def find(self, tenant: str, project_id: str) -> Project | None:
        """The tenant's project of that id."""
        ...

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[Project]:
        """Up to `limit` projects of the tenant with ids behind `after`, by id."""
        ...

    async def update(self, tenant: str, project_id: str, changes: Changes, now: datetime) -> Project | None:
        """Changes display name or active; None where the tenant has no such project."""
        ...


class UserStore(Protocol):
    """Users."""

    async def add(self, user: User) -> None:
        """Keeps a new user. AlreadyExists USER_EXISTS where the tenant has one with that email, FailedPrecondition
        TENANT_UNKNOWN."""
        ...

    async def find(self, tenant: str, user_id: str) -> User | None:
        """The tenant's user of that id."""
        ...

    async def with_email(self, tenant: str, email: str) -> User | None:
        """The tenant's user of that email, in lower case."""
        ...

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[User]:
        """Up to `limit` users of the tenant with emails behind `after`, by email."""
        ...

    async def update(self, tenant: str, user_id: str, changes: Changes, now: datetime) -> User | None:
        """Changes display name, role or active; None where the tenant has no such user.

        FailedPrecondition LAST_ADMIN where the tenant would be left without an active admin that it had, however many
        are changed at the same time.
        """
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """A part of a quota that one process may use by itself: `granted` uses, until the hour is over in `lasts_s`."""

    granted: int
    lasts_s: float


class QuotaStore(Protocol):
    """What was used of quotas in this hour, over all replicas."""

    async def lease(self, tenant: str, kind: Kind, *, quota: int, wanted: int, returned: int = 0) -> Lease:
        """Takes up to `wanted` uses out of what is left of this hour's quota; grants 0 where nothing is.

        `returned` uses were leased before in this hour and not made: they do not count any more.
        """
        ...
