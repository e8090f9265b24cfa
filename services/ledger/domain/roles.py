"""What a role may do."""

from collections.abc import Mapping

ROLE_SCOPES: Mapping[str, frozenset[str] | None] = {
    "admin": None,
    "operator": None,
    "member": frozenset({"documents.read", "documents.write", "summaries.create", "usage.read"}),
    "auditor": frozenset({"usage.read"}),
}
"""Scopes of each role; None: all that the contract knows, of which operators have none that ends in `.admin`."""


def scopes_of(role: str, known: frozenset[str]) -> frozenset[str]:
    """The scopes of a role, of those that the contract knows; none for a role that nobody knows."""
    listed = ROLE_SCOPES.get(role, frozenset())
    if listed is not None:
        return listed & known
    return known if role == "admin" else frozenset(scope for scope in known if not scope.endswith(".admin"))
