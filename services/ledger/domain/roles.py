"""Which role may do what: the one table of scopes."""

from collections.abc import Mapping
from enum import Enum


class Role(Enum):
    """What a user may do, at most."""

    ADMIN = "admin"
    OPERATOR = "operator"
    MEMBER = "member"
    AUDITOR = "auditor"

    @property
    def scopes(self) -> frozenset[str]:
        """Every scope that it allows."""
        return _SCOPES[self]


_A, _O, _M, _R = Role.ADMIN, Role.OPERATOR, Role.MEMBER, Role.AUDITOR

ROLES: Mapping[str, frozenset[Role]] = {
    "answers.create": frozenset({_A, _O, _M}),
    "audit.read": frozenset({_A, _O, _R}),
    "budgets.admin": frozenset({_A}),
    "budgets.read": frozenset({_A, _O, _M, _R}),
    "documents.read": frozenset({_A, _O, _M}),
    "documents.write": frozenset({_A, _O, _M}),
    "fields.create": frozenset({_A, _O, _M}),
    "jobs.cancel": frozenset({_A, _O, _M}),
    "jobs.create": frozenset({_A, _O, _M}),
    "jobs.read": frozenset({_A, _O, _M}),
    "keys.admin": frozenset({_A}),
    "models.admin": frozenset({_A}),
    "models.read": frozenset({_A, _O, _M, _R}),
    "projects.admin": frozenset({_A}),
    "projects.read": frozenset({_A, _O, _M, _R}),
    "schemas.read": frozenset({_A, _O, _M}),
    "schemas.write": frozenset({_A, _O, _M}),
    "summaries.create": frozenset({_A, _O, _M}),
    "tenants.admin": frozenset({_A}),
    "usage.read": frozenset({_A, _O, _M, _R}),
    "users.admin": frozenset({_A}),
    "users.read": frozenset({_A, _O, _R}),
}
"""Who has each scope. Which methods ask for it is in the contract; a test holds both to
docs/identity.md."""

_SCOPES = {role: frozenset(scope for scope, roles in ROLES.items() if role in roles) for role in Role}
