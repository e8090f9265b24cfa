"""Who may call what: the contract is the table, and what it does not say is refused."""

import importlib
from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor

from pagemesh.common.v1 import access_pb2
from services.ledger.domain.roles import ROLES
from services.runtime import access
from services.runtime.call import Identity
from services.runtime.errors import PagemeshError, PermissionDenied, Unauthenticated

GEN = Path(__file__).parents[3] / "gen"
SCOPES = set(ROLES)
PEERS = {"extractor", "summarizer", "ledger", "operator"}
FOR_EVERYBODY = {"pagemesh.ledger.v1.CredentialService.GetJsonWebKeySet": {"edge"}}
"""Through the edge, without a credential."""


def methods() -> list[MethodDescriptor]:
    found = []
    for stub in sorted(GEN.glob("pagemesh/*/v1/*_service_pb2.py")):
        name = ".".join(stub.relative_to(GEN).with_suffix("").parts)
        file = importlib.import_module(name).DESCRIPTOR
        found += [m for service in file.services_by_name.values() for m in service.methods]
    return found


@pytest.mark.parametrize("method", methods(), ids=lambda m: str(m.full_name))
def test_every_method_says_who_may_call_it(method: MethodDescriptor) -> None:
    declared = method.GetOptions().Extensions[access_pb2.access]
    assert declared.scope or declared.internal_callers or declared.any_scope
    assert not (declared.scope and declared.any_scope)
    assert not declared.scope or declared.scope in SCOPES
    assert set(declared.internal_callers) <= FOR_EVERYBODY.get(method.full_name, PEERS)


def test_the_contract_has_methods() -> None:
    assert len(methods()) >= 15


def identity(*scopes: str) -> Identity:
    return Identity("acme", "apiKeys/a", "", frozenset(scopes))


RESERVE = "/pagemesh.ledger.v1.LedgerService/Reserve"
USAGE = "/pagemesh.ledger.v1.LedgerService/QueryUsage"
WHOAMI = "/pagemesh.ledger.v1.IdentityService/WhoAmI"
CREATE = "/pagemesh.ledger.v1.IdentityService/CreateApiKey"
EXTRACT = "/pagemesh.extractor.v1.ExtractorService/ExtractPages"
DELETE = "/pagemesh.extractor.v1.ExtractorService/DeleteDocument"
CHECK = "/envoy.service.auth.v3.Authorization/Check"


@pytest.mark.parametrize(
    ("method", "peer", "who", "refusal"),
    [
        (RESERVE, "summarizer", identity(), None),
        (RESERVE, "edge", identity(*SCOPES), PermissionDenied),
        (RESERVE, "extractor", identity(), PermissionDenied),
        (USAGE, "edge", identity("usage.read"), None),
        (USAGE, "edge", identity("documents.read"), PermissionDenied),
        (USAGE, "edge", None, Unauthenticated),
        (USAGE, "operator", identity("usage.read"), PermissionDenied),
        (USAGE, "summarizer", identity(*SCOPES), PermissionDenied),
        (CREATE, "summarizer", identity(*SCOPES), PermissionDenied),
        (CREATE, "extractor", identity(*SCOPES), PermissionDenied),
        (EXTRACT, "summarizer", identity(), None),
        (EXTRACT, "edge", identity("documents.read"), None),
        (EXTRACT, "edge", identity("summaries.create"), PermissionDenied),
        (DELETE, "summarizer", identity(*SCOPES), PermissionDenied),
        (WHOAMI, "edge", identity(), None),
        (WHOAMI, "edge", None, Unauthenticated),
        (CHECK, "edge", None, None),
        (CHECK, "summarizer", identity(), PermissionDenied),
        ("/grpc.health.v1.Health/Check", "operator", None, None),
        ("/pagemesh.ledger.v1.LedgerService/Nothing", "edge", identity(*SCOPES), PermissionDenied),
        ("/unknown.Service/Method", "summarizer", identity(*SCOPES), PermissionDenied),
    ],
)
def test_who_may_call(method: str, peer: str, who: Identity | None, refusal: type[PagemeshError] | None) -> None:
    rule = access.of_method(method)
    if refusal is None:
        rule.check(peer, who)
    else:
        with pytest.raises(refusal):
            rule.check(peer, who)
