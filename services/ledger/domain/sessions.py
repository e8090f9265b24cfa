"""Sessions: short-lived tokens that stand for an API key."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from services.ledger.domain.fresh_cache import FreshCache
from services.ledger.domain.identity import Authenticator, Denial, Principal
from services.ledger.domain.jwt_form import JwtForm
from services.ledger.domain.keys import ApiKey
from services.ledger.domain.ports import Clock, KeyStore
from services.ledger.domain.session_tokens import Session, SessionTokens, is_early, key_of_session, new_session_id
from services.ledger.domain.signing_keys import SESSION_LIFETIME, SigningKeys
from services.ledger.domain.values import Caller
from services.runtime.errors import FailedPrecondition, NotFound, PermissionDenied

_FORGET_AFTER = SESSION_LIFETIME + timedelta(minutes=5)
"""How long a revocation is kept: its token has expired by every clock."""


class RevokedSessions(Protocol):
    """Sessions that were ended before their time."""

    async def add(self, tenant: str, session_id: str, now: datetime, forget_time: datetime) -> None:
        """Ends the session; again, it changes nothing."""
        ...

    async def has(self, tenant: str, session_id: str) -> bool:
        """Whether it was ended."""
        ...

    async def forget(self, limit: int) -> int:
        """Drops up to `limit` of those whose `forget_time` has passed; answers how many."""
        ...


class Sessions:
    """Makes and ends sessions."""

    def __init__(
        self,
        *,
        tokens: SessionTokens,
        signing_keys: SigningKeys,
        keys: KeyStore,
        revoked: RevokedSessions,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._signing_keys = signing_keys
        self._keys = keys
        self._revoked = revoked
        self._clock = clock

    async def exchange(self, caller: Caller, scopes: frozenset[str], *, within: str = "") -> tuple[Session, str]:
        """A new session of the caller's key, and its token, which is kept nowhere. No scopes means all of the key's.

        `within` is the session that the call itself is made in. Raises PermissionDenied SCOPE_NOT_GRANTABLE (the key
        lacks one), FailedPrecondition KEY_NEEDED (the caller is no API key, or a session: it would never end) or
        KEY_ENDING (nothing is left of the key's time).
        """
        key = await self._key_of(caller, within)
        lacking = sorted(scopes - caller.scopes)
        if lacking:
            raise PermissionDenied(
                "SCOPE_NOT_GRANTABLE",
                f"A session has only scopes of its key; yours lacks {', '.join(lacking)}.",
                metadata={"scopes": " ".join(lacking)},
            )
        now = self._clock().replace(microsecond=0)
        expires = now + SESSION_LIFETIME
        if key.expire_time is not None:
            expires = min(expires, key.expire_time.replace(microsecond=0))
        if expires <= now:
            raise FailedPrecondition("KEY_ENDING", "The key ends in less than a second. Use another one.")
        session = Session(
            session_id=new_session_id(key.key_id),
            tenant=caller.tenant,
            key_id=key.key_id,
            project=caller.project,
            scopes=scopes or caller.scopes,
            create_time=now,
            expire_time=expires,
        )
        return session, self._tokens.write(session, await self._signing_keys.signing())

    async def revoke(self, caller: Caller, session_id: str) -> None:
        """Ends a session of the caller's key, or with `keys.admin` of any key of the tenant; again, it does nothing.

        Raises NotFound SESSION_NOT_FOUND.
        """
        key_id = key_of_session(session_id)
        if caller.actor != f"apiKeys/{key_id}":
            key = await self._keys.find(key_id)
            if key is None or key.key.tenant != caller.tenant or "keys.admin" not in caller.scopes:
                raise NotFound("SESSION_NOT_FOUND", "There is no such session that is yours to end.")
        now = self._clock()
        await self._revoked.add(caller.tenant, session_id, now, now + _FORGET_AFTER)

    async def _key_of(self, caller: Caller, within: str) -> ApiKey:
        kind, _, key_id = caller.actor.partition("/")
        stored = await self._keys.find(key_id) if kind == "apiKeys" and not within else None
        if stored is None or stored.key.tenant != caller.tenant:
            raise FailedPrecondition("KEY_NEEDED", "Only an API key is exchanged for a session. Call with one.")
        return stored.key


class SessionCheck:
    """Tells who a session is. The signature of a token is checked once, and whether it was ended is remembered."""

    def __init__(
        self,
        *,
        tokens: SessionTokens,
        signing_keys: SigningKeys,
        revoked: RevokedSessions,
        authenticator: Authenticator,
        verified: FreshCache[bytes, Session],
        standing: FreshCache[str, bool],
        clock: Clock,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._signing_keys = signing_keys
        self._revoked = revoked
        self._authenticator = authenticator
        self._verified = verified
        self._standing = standing
        self._clock = clock
        self._monotonic_s = monotonic_s

    @property
    def issuer(self) -> str:
        """What sessions have in `iss`."""
        return self._tokens.issuer

    def remembered(self, token: str) -> Session | None:
        """The session of a token whose signature was checked lately."""
        return self._verified.get(_digest(token))

    async def check(self, form: JwtForm) -> Session | Denial:
        """The session of a token, whatever its times and whatever became of it."""
        key = await self._signing_keys.verifying(form.kid)
        if key is None:
            return Denial.SIGNER_UNKNOWN
        session = self._tokens.read(form, key)
        if session is None:
            return Denial.BAD_SIGNATURE
        # What a signature says stays true: this needs no news.
        self._verified.put(
            _digest(form.token), session, looked_up_s=self._monotonic_s(), changes=self._verified.changes
        )
        return session

    async def principal(self, session: Session) -> Principal | Denial:
        """Who it is now: its time is looked at, whether it was ended, and whether its key stands."""
        now = self._clock()
        if session.expire_time <= now:
            return Denial.EXPIRED
        if is_early(session, now):
            return Denial.NOT_YET_VALID
        if not await self._stands(session):
            return Denial.REVOKED
        key = await self._authenticator.standing(session.key_id)
        if isinstance(key, Denial):
            return key
        return replace(key, scopes=session.scopes & key.scopes, session=session.name)

    def changed(self, kind: str, name: str) -> None:
        """A session was ended."""
        if kind == "sessions":
            self._standing.drop(name)

    def missed(self) -> None:
        """Any may have been ended."""
        self._standing.clear()

    async def _stands(self, session: Session) -> bool:
        if self._standing.get(session.session_id):
            return True
        changes, now_s = self._standing.changes, self._monotonic_s()
        if await self._revoked.has(session.tenant, session.session_id):
            return False
        self._standing.put(session.session_id, True, looked_up_s=now_s, changes=changes)
        return True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
