"""Tenants, their projects and their users, as values."""

from dataclasses import dataclass
from datetime import datetime

from services.ledger.domain.roles import Role


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer. `domain` is empty where it has none; `plan` is the bare id."""

    tenant_id: str
    display_name: str
    domain: str
    active: bool
    plan: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Project:
    """A part of a tenant's work. The id is the tenant's own."""

    tenant: str
    project_id: str
    display_name: str
    active: bool
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A person who works for a tenant. `email` is in lower case and never changes."""

    tenant: str
    user_id: str
    email: str
    display_name: str
    role: Role
    active: bool
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update changes; None leaves it as it is. Which of them a kind of thing has, its store says."""

    display_name: str | None = None
    domain: str | None = None
    active: bool | None = None
    role: Role | None = None
    plan: str | None = None
