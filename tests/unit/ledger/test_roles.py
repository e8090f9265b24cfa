"""The one table of scopes against every method of the contract, and against what the documentation says of it."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor

from services.ledger.api import contract
from services.ledger.domain.roles import ROLES, Role
from services.runtime.access import of_descriptor

PAGE = Path(__file__).parents[3] / "docs" / "identity.md"
METHODS = [method for service in contract.services() for method in service.methods]


@pytest.mark.parametrize("method", METHODS, ids=[method.full_name for method in METHODS])
def test_every_method_says_who_may_call_it(method: MethodDescriptor) -> None:
    access = of_descriptor(method)
    assert access.scope or access.any_scope or access.internal_callers
    assert not (access.scope and access.any_scope)


def test_the_table_has_every_scope_of_the_contract_and_no_other() -> None:
    assert ROLES.keys() == contract.scopes()
    assert all(ROLES.values()), "a scope that no role has"


def test_roles_are_what_they_are_called() -> None:
    """The rules behind the table, for whoever adds a line to it."""
    for scope, roles in ROLES.items():
        assert Role.ADMIN in roles, scope
        if scope.endswith(".admin"):
            assert roles == {Role.ADMIN}, scope
        else:
            assert Role.OPERATOR in roles, scope
        if Role.AUDITOR in roles:
            assert scope.endswith(".read"), scope
    assert "documents.read" not in Role.AUDITOR.scopes


def test_the_documentation_has_the_same_table() -> None:
    rows = re.findall(r"^\| `([a-z]+\.[a-z]+)` \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    said = {}
    for scope, cells in rows:
        marks = [cell.strip() for cell in cells.split("|")][: len(Role)]
        assert set(marks) <= {"yes", ""}, scope
        said[scope] = {role for role, mark in zip(Role, marks, strict=True) if mark}
    assert said == {scope: set(roles) for scope, roles in ROLES.items()}
    assert [scope for scope, _ in rows] == sorted(ROLES)
