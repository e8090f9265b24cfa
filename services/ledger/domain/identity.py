"""The identity use cases: who a credential is, and making and ending keys."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from services.ledger.domain.checks import check_text, check_time, invalid_field
from services.ledger.domain.key_cache import KeyCache
from services.ledger.domain.keys import ApiKey, KeyHasher, KeyMint, StoredKey, key_id_of
from services.ledger.domain.ports import Clock, KeyStore
from services.ledger.domain.values import Caller
from services.runtime.errors import NotFound, PermissionDenied

_NO_HASH = bytes(32)


class Denial(Enum):
    """Why a credential is not let in: for the operator's metrics, never for the caller."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"
    TENANT_INACTIVE = "tenant_inactive"
    NOT_YET_VALID = "not_yet_valid"
    SIGNER_UNKNOWN = "signer_unknown"
    BAD_SIGNATURE = "bad_signature"
    ISSUER_UNKNOWN = "issuer_unknown"
    EMAIL_UNVERIFIED = "email_unverified"
    USER_UNKNOWN = "user_unknown"
    USER_INACTIVE = "user_inactive"
    CERTIFICATE_UNKNOWN = "certificate_unknown"
    CERTIFICATE_IN_BROWSER = "certificate_in_browser"
    REQUEST_UNSIGNED = "request_unsigned"
    SIGNATURE_MALFORMED = "signature_malformed"
    SIGNATURE_INCOMPLETE = "signature_incomplete"
    SIGNATURE_EXPIRED = "signature_expired"
    SIGNATURE_WRONG = "signature_wrong"
    SIGNATURE_REPLAYED = "signature_replayed"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a credential is."""

    tenant: str
    actor: str
    project: str
    scopes: frozenset[str]
    session: str = ""
    """`sessions/{id}`, where it is one."""
    key_id: str = ""
    """Of the API key that it is, or stands for; empty for users of identity providers."""


class Authenticator:
    """Tells who a credential is."""

    def __init__(
        self,
        *,
        keys: KeyStore,
        hasher: KeyHasher,
        cache: KeyCache,
        clock: Clock,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._hasher = hasher
        self._cache = cache
        self._clock = clock
        self._monotonic_s = monotonic_s

    async def authenticate(self, credential: str) -> Principal | Denial:
        """Who the credential `pm_{id}_{secret}` is, or why it is nobody; the empty string is MISSING.

        A key that does not exist costs the same hash, look-up and comparison as one that does.
        """
        if not credential:
            return Denial.MISSING
        key_id = key_id_of(credential)
        if key_id is None:
            return Denial.MALFORMED
        digest = self._hasher.digest(credential)
        key = self._cache.get(key_id, digest)
        if key is None:
            found = await self._look_up(key_id, digest)
            if isinstance(found, Denial):
                return found
            key = found
        return self._principal(key)

    async def standing(self, key_id: str) -> Principal | Denial:
        """Who the key of that id is, or why it is nobody, for whoever has proved by other means that it is theirs."""
        key = self._cache.standing(key_id)
        if key is None:
            found = await self._look_up(key_id, None)
            if isinstance(found, Denial):
                return found
            key = found
        return self._principal(key)

    def _principal(self, key: ApiKey) -> Principal | Denial:
        if key.expire_time is not None and key.expire_time <= self._clock():
            return Denial.EXPIRED
        return Principal(key.tenant, key.name, "", key.scopes, key_id=key.key_id)

    async def _look_up(self, key_id: str, digest: bytes | None) -> ApiKey | Denial:
        changes, now_s = self._cache.changes, self._monotonic_s()
        stored = await self._keys.find(key_id)
        known = digest is None or hmac.compare_digest(_NO_HASH if stored is None else stored.key_hash, digest)
        if stored is None or not known:
            return Denial.UNKNOWN
        denial = _denial(stored)
        if denial is not None:
            return denial
        self._cache.put(stored.key_hash, stored.key, looked_up_s=now_s, changes=changes)
        return stored.key


class KeyRing:
    """Makes and ends keys. `known_scopes` are the scopes that the contract speaks of."""

    def __init__(
        self, *, keys: KeyStore, hasher: KeyHasher, mint: KeyMint, clock: Clock, known_scopes: frozenset[str]
    ) -> None:
        self._keys = keys
        self._hasher = hasher
        self._mint = mint
        self._clock = clock
        self._known_scopes = known_scopes

    async def create(
        self, caller: Caller, display_name: str, scopes: frozenset[str], expire_time: datetime | None
    ) -> tuple[ApiKey, str]:
        """Makes a key for the caller's tenant; answers it with its credential, which is kept nowhere.

        Raises InvalidArgument SCOPE_UNKNOWN or INVALID_FIELD, PermissionDenied SCOPE_NOT_GRANTABLE (the caller lacks
        a scope) or EXPIRY_NOT_GRANTABLE (the new key would outlive the caller's), FailedPrecondition TENANT_UNKNOWN.
        """
        self._check_scopes(caller, scopes)
        now = self._clock()
        check_text(display_name, "display_name")
        if expire_time is not None:
            check_time(expire_time, "expire_time")
            if expire_time <= now:
                raise invalid_field("expire_time", "must be in the future")
        await self._check_expiry(caller, expire_time)
        key_id, credential = self._mint.credential()
        key = ApiKey(key_id, caller.tenant, display_name, scopes, now, expire_time)
        await self._keys.add(key, self._hasher.digest(credential))
        return key, credential

    async def revoke(self, caller: Caller, key_id: str) -> ApiKey:
        """Ends a key of the caller's tenant; again, it answers the same. Raises NotFound KEY_NOT_FOUND."""
        key = await self._keys.revoke(caller.tenant, key_id, self._clock())
        if key is None:
            raise NotFound("KEY_NOT_FOUND", "There is no such API key.")
        return key

    def _check_scopes(self, caller: Caller, scopes: frozenset[str]) -> None:
        unknown = sorted(scopes - self._known_scopes)
        if unknown:
            known = ", ".join(sorted(self._known_scopes))
            raise invalid_field(
                "scopes", f"no such scope: {', '.join(unknown)}; there are {known}", reason="SCOPE_UNKNOWN"
            )
        lacking = sorted(scopes - caller.scopes)
        if lacking:
            raise PermissionDenied(
                "SCOPE_NOT_GRANTABLE",
                f"A key grants only scopes that it has itself; yours lacks {', '.join(lacking)}.",
                metadata={"scopes": " ".join(lacking)},
            )

    async def _check_expiry(self, caller: Caller, expire_time: datetime | None) -> None:
        maker = await self._keys.find(caller.actor.removeprefix("apiKeys/"))
        limit = maker.key.expire_time if maker is not None else None
        if limit is not None and (expire_time is None or expire_time > limit):
            raise PermissionDenied(
                "EXPIRY_NOT_GRANTABLE",
                f"A key cannot make one that outlives it. Set expire_time to {limit.isoformat()} or before.",
            )


def _denial(stored: StoredKey) -> Denial | None:
    if stored.key.revoke_time is not None:
        return Denial.REVOKED
    return None if stored.tenant_active else Denial.TENANT_INACTIVE
