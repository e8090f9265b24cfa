"""Administering a tenant: itself, its projects and its users; and what the operator does with tenants."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.ledger.domain import refusals
from services.ledger.domain.checks import check_name, invalid_field
from services.ledger.domain.identity_ports import ProjectStore, TenantDirectory, UserStore
from services.ledger.domain.keys import random_key_id
from services.ledger.domain.members import Changes, Project, Tenant, User
from services.ledger.domain.parts import Part, part_of
from services.ledger.domain.plans import Plan
from services.ledger.domain.ports import Clock, KeyStore
from services.ledger.domain.roles import Role
from services.ledger.domain.values import Caller
from services.runtime.errors import PermissionDenied

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DOMAIN = re.compile(r"(?!.{256})[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+")
_EMAIL = re.compile(
    r"(?!.{255})[a-z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
)
"""As HTML and the contract say what an address is, in lower case."""


def check_id(name: str, path: str) -> None:
    """Raises InvalidArgument for what is no id of a tenant or project."""
    if not _ID.fullmatch(name):
        raise invalid_field(path, "must be 1 to 63 of [0-9a-z-] and not begin with a hyphen")


def domain_of(text: str, path: str = "domain") -> str:
    """The domain in lower case, or the empty string. Raises InvalidArgument for what is none."""
    domain = text.lower()
    if domain and not _DOMAIN.fullmatch(domain):
        raise invalid_field(path, "must be a domain name such as acme.example, of at most 255 characters")
    return domain


def email_of(text: str, path: str = "email") -> str:
    """The address in lower case. Raises InvalidArgument for what is none."""
    email = text.lower()
    if not _EMAIL.fullmatch(email):
        raise invalid_field(path, "must be an address such as ada@acme.example")
    return email


class Tenants:
    """Tenants, for themselves and for the operator."""

    def __init__(self, *, tenants: TenantDirectory, clock: Clock) -> None:
        self._tenants = tenants
        self._clock = clock

    async def own(self, caller: Caller, tenant_id: str) -> Tenant:
        """The caller's own tenant. Raises NotFound TENANT_NOT_FOUND, also for every other."""
        tenant = await self._tenants.find(tenant_id) if tenant_id == caller.tenant else None
        if tenant is None:
            raise refusals.tenant_not_found()
        return tenant

    async def update_own(self, caller: Caller, tenant_id: str, changes: Changes) -> Tenant:
        """Changes display name and domain of the caller's own tenant. Raises NotFound TENANT_NOT_FOUND, AlreadyExists
        DOMAIN_TAKEN, InvalidArgument."""
        if changes.display_name is not None:
            check_name(changes.display_name, "tenant.display_name")
        if tenant_id != caller.tenant:
            raise refusals.tenant_not_found()
        domain = None if changes.domain is None else domain_of(changes.domain, "tenant.domain")
        return await self._change(tenant_id, Changes(display_name=changes.display_name, domain=domain))

    async def list(self, page_size: int, page_token: str) -> Part[Tenant]:
        """All tenants, by id. Raises InvalidArgument INVALID_PAGE_TOKEN."""
        return await part_of(
            "tenants", page_size, page_token, read=self._tenants.list, place=lambda tenant: tenant.tenant_id
        )

    async def switch(self, tenant_id: str, *, active: bool) -> Tenant:
        """Switches a tenant on or off. Raises NotFound TENANT_NOT_FOUND."""
        return await self._change(tenant_id, Changes(active=active))

    async def set_plan(self, tenant_id: str, plan: str) -> Tenant:
        """Gives a tenant another plan. Raises NotFound TENANT_NOT_FOUND or PLAN_NOT_FOUND."""
        return await self._change(tenant_id, Changes(plan=plan))

    async def plans(self) -> Sequence[Plan]:
        """All plans, by id."""
        return await self._tenants.plans()

    async def _change(self, tenant_id: str, changes: Changes) -> Tenant:
        tenant = await self._tenants.update(tenant_id, changes, self._clock())
        if tenant is None:
            raise refusals.tenant_not_found()
        return tenant


class Projects:
    """The projects of the caller's tenant."""

    def __init__(self, *, projects: ProjectStore, clock: Clock) -> None:
        self._projects = projects
        self._clock = clock

    async def create(self, caller: Caller, project_id: str, display_name: str) -> Project:
        """Makes a project. Raises InvalidArgument, AlreadyExists PROJECT_EXISTS, FailedPrecondition TENANT_UNKNOWN."""
        check_id(project_id, "project_id")
        check_name(display_name, "display_name")
        now = self._clock()
        project = Project(caller.tenant, project_id, display_name, True, now, now)
        await self._projects.add(project)
        return project

    async def get(self, caller: Caller, project_id: str) -> Project:
        """One project. Raises NotFound PROJECT_NOT_FOUND."""
        project = await self._projects.find(caller.tenant, project_id)
        if project is None:
            raise refusals.project_not_found()
        return project

    async def list(self, caller: Caller, page_size: int, page_token: str) -> Part[Project]:
        """The projects, by id. Raises InvalidArgument INVALID_PAGE_TOKEN."""

        async def read(after: str, limit: int) -> Sequence[Project]:
            return await self._projects.list(caller.tenant, after, limit)

        return await part_of(
            f"{caller.tenant}/projects", page_size, page_token, read=read, place=lambda project: project.project_id
        )

    async def update(self, caller: Caller, project_id: str, changes: Changes) -> Project:
        """Changes display name or active. Raises NotFound PROJECT_NOT_FOUND, InvalidArgument."""
        if changes.display_name is not None:
            check_name(changes.display_name, "project.display_name")
        project = await self._projects.update(caller.tenant, project_id, changes, self._clock())
        if project is None:
            raise refusals.project_not_found()
        return project


class Users:
    """The users of the caller's tenant. `make_id` makes 16 characters of [0-9a-z]."""

    def __init__(self, *, users: UserStore, clock: Clock, make_id: Callable[[], str] = random_key_id) -> None:
        self._users = users
        self._clock = clock
        self._make_id = make_id

    async def create(self, caller: Caller, email: str, display_name: str, role: Role) -> User:
        """Makes a user. Raises InvalidArgument, PermissionDenied ROLE_NOT_GRANTABLE, AlreadyExists USER_EXISTS,
        FailedPrecondition TENANT_UNKNOWN."""
        check_name(display_name, "display_name")
        _check_role(caller, role)
        now = self._clock()
        user = User(caller.tenant, self._make_id(), email_of(email), display_name, role, True, now, now)
        await self._users.add(user)
        return user

    async def get(self, caller: Caller, user_id: str) -> User:
        """One user. Raises NotFound USER_NOT_FOUND."""
        user = await self._users.find(caller.tenant, user_id)
        if user is None:
            raise refusals.user_not_found()
        return user

    async def list(self, caller: Caller, page_size: int, page_token: str) -> Part[User]:
        """The users, by email. Raises InvalidArgument INVALID_PAGE_TOKEN."""

        async def read(after: str, limit: int) -> Sequence[User]:
            return await self._users.list(caller.tenant, after, limit)

        return await part_of(f"{caller.tenant}/users", page_size, page_token, read=read, place=lambda user: user.email)

    async def update(self, caller: Caller, user_id: str, changes: Changes) -> User:
        """Changes display name, role or active. Raises NotFound USER_NOT_FOUND, InvalidArgument, PermissionDenied
        ROLE_NOT_GRANTABLE (the user's role, or the one to be, allows more than the caller may do),
        FailedPrecondition LAST_ADMIN."""
        if changes.display_name is not None:
            check_name(changes.display_name, "user.display_name")
        user = await self.get(caller, user_id)
        _check_role(caller, user.role)
        if changes.role is not None:
            _check_role(caller, changes.role)
        changed = await self._users.update(caller.tenant, user_id, changes, self._clock())
        if changed is None:
            raise refusals.user_not_found()
        return changed


def _check_role(caller: Caller, role: Role) -> None:
    lacking = sorted(role.scopes - caller.scopes)
    if lacking:
        raise PermissionDenied(
            "ROLE_NOT_GRANTABLE",
            f"The role {role.value} allows more than your key may do; it lacks {', '.join(lacking)}.",
            metadata={"scopes": " ".join(lacking)},
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """What the headers of a call do not say of its caller: resource names, empty where there is none."""

    user: str = ""
    role: Role | None = None
    plan: str = ""


class Standings:
    """Tells callers about themselves."""

    def __init__(self, *, keys: KeyStore, users: UserStore, tenants: TenantDirectory) -> None:
        self._keys = keys
        self._users = users
        self._tenants = tenants

    async def of(self, caller: Caller) -> Standing:
        """What is known of the caller: of a key and of whose it is, or of a user who was let in without one."""
        stored = await self._keys.find(caller.actor.removeprefix("apiKeys/"))
        if stored is not None and stored.key.tenant == caller.tenant:
            user = f"users/{stored.key.user}" if stored.key.user else ""
            return Standing(user, stored.role, stored.plan.name)
        tenant = await self._tenants.find(caller.tenant)
        plan = f"plans/{tenant.plan}" if tenant is not None else ""
        kind, _, user_id = caller.actor.partition("/")
        member = await self._users.find(caller.tenant, user_id) if kind == "users" else None
        return Standing(plan=plan) if member is None else Standing(caller.actor, member.role, plan)
