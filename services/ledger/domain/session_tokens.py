"""Sessions as tokens: JWT (RFC 7519) signed with Ed25519 (RFC 8037)."""

import secrets
import string
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

from services.ledger.domain.jwt_form import JwtForm
from services.ledger.domain.signing_keys import SigningKey

ALGORITHM = "EdDSA"
_ID_ALPHABET = string.digits + string.ascii_lowercase
_ID_LENGTH = 26
_LEEWAY_S = 5
"""Clocks of replicas differ by no more."""
_REQUIRED = ["iss", "aud", "sub", "jti", "iat", "nbf", "exp"]


@dataclass(frozen=True, slots=True)
class Session:
    """A token that stands for a key. Times are UTC, in whole seconds."""

    session_id: str
    tenant: str
    key_id: str
    project: str
    scopes: frozenset[str]
    create_time: datetime
    expire_time: datetime

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"sessions/{self.session_id}"


def new_session_id(key_id: str) -> str:
    """The id of the key, and 134 random bits: whose session it is can be seen from its name alone."""
    return f"{key_id}-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


def key_of_session(session_id: str) -> str:
    """The id of the key that a session stands for."""
    return session_id.partition("-")[0]


class SessionTokens:
    """Writes and checks the tokens of one ledger; `issuer` is its name in `iss`, `audience` in `aud`."""

    def __init__(self, *, issuer: str, audience: str) -> None:
        self.issuer = issuer
        self._audience = audience

    def write(self, session: Session, key: SigningKey) -> str:
        """The token."""
        made = int(session.create_time.timestamp())
        claims = {
            "iss": self.issuer,
            "aud": self._audience,
            "sub": f"apiKeys/{session.key_id}",
            "jti": session.session_id,
            "iat": made,
            "nbf": made,
            "exp": int(session.expire_time.timestamp()),
            "tenant": session.tenant,
            "project": session.project,
            "scope": " ".join(sorted(session.scopes)),
        }
        return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.kid})

    def read(self, form: JwtForm, key: SigningKey) -> Session | None:
        """The session, if this key signed the token for this ledger; its times are not looked at."""
        if form.algorithm != ALGORITHM:
            return None
        try:
            claims = jwt.decode(
                form.token,
                key.public,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                audience=self._audience,
                options={"require": _REQUIRED, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return None
        return _session(claims)


def is_early(session: Session, now: datetime) -> bool:
    """Whether its time has not come."""
    return (session.create_time - now).total_seconds() > _LEEWAY_S


def _session(claims: dict[str, Any]) -> Session:
    # Signed by us: what is in there was put there by `write`.
    session_id: str = claims["jti"]
    return Session(
        session_id=session_id,
        tenant=claims["tenant"],
        key_id=key_of_session(session_id),
        project=claims["project"],
        scopes=frozenset(claims["scope"].split()),
        create_time=datetime.fromtimestamp(claims["nbf"], UTC),
        expire_time=datetime.fromtimestamp(claims["exp"], UTC),
    )
