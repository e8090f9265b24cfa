"""API keys: how they look, how they are made, and what of them is kept."""

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.ledger.domain.plans import UNLIMITED, Plan
from services.ledger.domain.roles import Role

_ID_ALPHABET = string.digits + string.ascii_lowercase
_ID_LENGTH = 16
_SECRET_BYTES = 32
_NO_HASH = bytes(32)
_FORM = re.compile(rf"pm_([{_ID_ALPHABET}]{{{_ID_LENGTH}}})_[A-Za-z0-9_-]{{43}}")
"""43 characters are 32 bytes in base64url without padding."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A credential of a tenant, without its secret. Absent times mean never and not yet."""

    key_id: str
    tenant: str
    display_name: str
    scopes: frozenset[str]
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    project: str = ""
    """The bare id of its project; empty where it has none."""
    user: str = ""
    """The bare id of the user whose key it is; empty where it is the tenant's own."""
    rotate_time: datetime | None = None
    previous_expire_time: datetime | None = None
    """Until when the secret before the present one works."""

    @property
    def name(self) -> str:
        """Its resource name; also the actor of the calls that are made with it."""
        return f"apiKeys/{self.key_id}"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is kept, with what it depends on. `role` is that of its user, None where it has none."""

    key: ApiKey
    key_hash: bytes = field(repr=False)
    tenant_active: bool
    project_active: bool = True
    user_active: bool = True
    role: Role | None = None
    plan: Plan = UNLIMITED
    previous_hash: bytes | None = field(default=None, repr=False)

    @property
    def scopes(self) -> frozenset[str]:
        """What it may do now: what it was made for, as far as its user's role still allows that."""
        return self.key.scopes if self.role is None else self.key.scopes & self.role.scopes

    def expires(self, digest: bytes) -> datetime | None:
        """When the secret with this digest stops working, if nothing changes; None means never.

        Raises LookupError where it is none of this key's. Both comparisons are made, whichever fits.
        """
        present = hmac.compare_digest(self.key_hash, digest)
        previous = hmac.compare_digest(self.previous_hash or _NO_HASH, digest)
        ends = self.key.expire_time
        if present:
            return ends
        over = self.key.previous_expire_time
        if not previous or over is None:
            raise LookupError
        return over if ends is None else min(over, ends)


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where a key stands in the list of its tenant's keys."""

    create_time: datetime
    key_id: str


NO_KEY = StoredKey(ApiKey("", "", "", frozenset(), datetime(1970, 1, 1, tzinfo=UTC)), bytes(32), tenant_active=False)
"""Stands in for a key that does not exist, so that its credential costs the same comparisons."""


def key_id_of(credential: str) -> str | None:
    """The id within `pm_{id}_{secret}`; None for what does not have that form."""
    match = _FORM.fullmatch(credential)
    return None if match is None else match[1]


class KeyHasher:
    """HMAC-SHA256 of a credential under a secret that the database does not know.

    A secret of 256 random bits needs no slow hash: there is nothing to guess. The pepper makes a stolen table useless
    for checking stolen credentials.
    """

    def __init__(self, pepper: str) -> None:
        self._pepper = pepper.encode()

    def digest(self, credential: str) -> bytes:
        """The 32 bytes that are kept."""
        return hmac.digest(self._pepper, credential.encode(), hashlib.sha256)


def random_key_id() -> str:
    """16 characters of [0-9a-z], 82 bits."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


def random_secret() -> str:
    """256 bits in base64url."""
    return secrets.token_urlsafe(_SECRET_BYTES)


@dataclass(frozen=True, slots=True)
class KeyMint:
    """Makes credentials."""

    key_id: Callable[[], str] = random_key_id
    secret: Callable[[], str] = random_secret

    def credential(self) -> tuple[str, str]:
        """A new id and the credential that carries it, `pm_{id}_{secret}`."""
        key_id = self.key_id()
        return key_id, self.secret_of(key_id)

    def secret_of(self, key_id: str) -> str:
        """A new credential for a key that is there."""
        return f"pm_{key_id}_{self.secret()}"
