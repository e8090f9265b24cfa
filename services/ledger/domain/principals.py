"""Who a credential turned out to be."""

from dataclasses import dataclass
from enum import Enum

from services.ledger.domain.plans import UNLIMITED, Plan
from services.ledger.domain.roles import Role


class Denial(Enum):
    """Why a credential is not let in: for the operator's metrics, never for the caller."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"
    TENANT_INACTIVE = "tenant_inactive"
    PROJECT_INACTIVE = "project_inactive"
    USER_INACTIVE = "user_inactive"
    USER_UNKNOWN = "user_unknown"
    EMAIL_UNVERIFIED = "email_unverified"
    NOT_YET_VALID = "not_yet_valid"
    SIGNER_UNKNOWN = "signer_unknown"
    BAD_SIGNATURE = "bad_signature"
    ISSUER_UNKNOWN = "issuer_unknown"
    CERTIFICATE_UNKNOWN = "certificate_unknown"
    CERTIFICATE_IN_BROWSER = "certificate_in_browser"
    REQUEST_UNSIGNED = "request_unsigned"
    SIGNATURE_MALFORMED = "signature_malformed"
    SIGNATURE_INCOMPLETE = "signature_incomplete"
    SIGNATURE_EXPIRED = "signature_expired"
    SIGNATURE_WRONG = "signature_wrong"
    SIGNATURE_REPLAYED = "signature_replayed"
    CREDENTIAL_TWICE = "credential_twice"
    CROSS_SITE = "cross_site"
    CSRF_TOKEN_WRONG = "csrf_token_wrong"  # noqa: S105  # no secret


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a credential is: the bare id of the tenant, resource names of the actor, the project and the user (the latter
    two may be empty), what it may do, and the tenant's plan. `role` is None where there is no user."""

    tenant: str
    actor: str
    project: str
    scopes: frozenset[str]
    user: str = ""
    role: Role | None = None
    plan: Plan = UNLIMITED
    session: str = ""
    """`sessions/{id}` or `browserSessions/{id}`, where it is one."""
    key_id: str = ""
    """Of the API key that it is, or stands for; empty for users of identity providers."""
    provider: str = ""
    """The id of the identity provider whose token it is."""
