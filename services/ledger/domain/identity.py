"""Who a credential is."""

from collections.abc import Callable

from services.ledger.domain.key_cache import Admission, KeyCache
from services.ledger.domain.keys import NO_KEY, KeyHasher, StoredKey, key_id_of
from services.ledger.domain.ports import Clock, KeyStore
from services.ledger.domain.principals import Denial, Principal

__all__ = ["Authenticator", "Denial", "Principal"]

_STANDING = b"standing"
"""In the place of a secret's digest, which is longer: of those who proved in another way that the key is theirs."""


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
        admission = self._cache.get(key_id, digest)
        if admission is None:
            found = await self._look_up(key_id, digest)
            if isinstance(found, Denial):
                return found
            admission = found
        return self._principal(admission)

    async def standing(self, key_id: str) -> Principal | Denial:
        """Who the key of that id is, or why it is nobody, for whoever has proved by other means that it is theirs."""
        admission = self._cache.get(key_id, _STANDING)
        if admission is None:
            found = await self._look_up(key_id, None)
            if isinstance(found, Denial):
                return found
            admission = found
        return self._principal(admission)

    def _principal(self, admission: Admission) -> Principal | Denial:
        if admission.expire_time is not None and admission.expire_time <= self._clock():
            return Denial.EXPIRED
        return admission.principal

    async def _look_up(self, key_id: str, digest: bytes | None) -> Admission | Denial:
        changes, now_s = self._cache.changes, self._monotonic_s()
        stored = await self._keys.find(key_id)
        try:
            key = stored or NO_KEY
            expire_time = key.key.expire_time if digest is None else key.expires(digest)
        except LookupError:
            return Denial.UNKNOWN
        if stored is None:
            return Denial.UNKNOWN
        denial = _denial(stored)
        if denial is not None:
            return denial
        admission = Admission(principal_of(stored), expire_time)
        self._cache.put(key_id, digest or _STANDING, admission, looked_up_s=now_s, changes=changes)
        return admission


def principal_of(stored: StoredKey) -> Principal:
    """Who a key is, if it is let in."""
    key = stored.key
    return Principal(
        tenant=key.tenant,
        actor=key.name,
        project=f"projects/{key.project}" if key.project else "",
        scopes=stored.scopes,
        user=f"users/{key.user}" if key.user else "",
        role=stored.role,
        plan=stored.plan,
        key_id=key.key_id,
    )


def _denial(stored: StoredKey) -> Denial | None:
    """Why the key is not let in; the first reason counts."""
    reasons = (
        (stored.key.revoke_time is not None, Denial.REVOKED),
        (not stored.tenant_active, Denial.TENANT_INACTIVE),
        (not stored.project_active, Denial.PROJECT_INACTIVE),
        (not stored.user_active, Denial.USER_INACTIVE),
    )
    return next((denial for holds, denial in reasons if holds), None)
