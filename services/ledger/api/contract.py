"""What the contract says about the whole mesh: its public services and its scopes, read from the descriptors."""

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from pagemesh.extractor.v1 import extractor_service_pb2
from pagemesh.ledger.v1 import (
    audit_service_pb2,
    browser_session_service_pb2,
    credential_service_pb2,
    identity_service_pb2,
    ledger_service_pb2,
)
from pagemesh.summarizer.v1 import (
    job_service_pb2,
    model_policy_service_pb2,
    schema_service_pb2,
    summarizer_service_pb2,
)
from services.runtime.access import of_descriptor

LEDGER = "pagemesh.ledger.v1.LedgerService"
IDENTITY = "pagemesh.ledger.v1.IdentityService"
OPERATOR = "pagemesh.ledger.v1.OperatorService"
AUDIT = "pagemesh.ledger.v1.AuditService"
CREDENTIALS = "pagemesh.ledger.v1.CredentialService"
BROWSER_SESSIONS = "pagemesh.ledger.v1.BrowserSessionService"
AUTHORIZATION = "envoy.service.auth.v3.Authorization"

_FILES = (
    extractor_service_pb2,
    summarizer_service_pb2,
    schema_service_pb2,
    job_service_pb2,
    model_policy_service_pb2,
    ledger_service_pb2,
    identity_service_pb2,
    audit_service_pb2,
    credential_service_pb2,
    browser_session_service_pb2,
)


def services() -> list[ServiceDescriptor]:
    """Every service that the edge routes to, of whichever part of the mesh."""
    return [service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()]


def service_names() -> list[str]:
    """Their full names. The edge sends reflection to the ledger, which therefore knows all of them."""
    return [service.full_name for service in services()]


def scopes() -> frozenset[str]:
    """Every scope that some method asks for."""
    methods: list[MethodDescriptor] = [m for service in services() for m in service.methods]
    return frozenset(scope for method in methods if (scope := of_descriptor(method).scope))
