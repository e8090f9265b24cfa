"""Browsers that somebody signed in with: sessions of a day, in a cookie that no script reads.

Unlike the tokens of sessions.py they are kept, so that they can be listed and ended one by one, and so that a cookie is
worth nothing once its row is gone.
"""

import base64
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from services.ledger.domain.fresh_cache import FreshCache
from services.ledger.domain.identity import Authenticator, Denial, Principal
from services.ledger.domain.identity_providers import OidcCheck
from services.ledger.domain.ports import Clock, KeyStore
from services.ledger.domain.values import Caller
from services.runtime.errors import FailedPrecondition, NotFound, PermissionDenied

COOKIE = "__Host-pagemesh-session"
"""The prefix has browsers take it over TLS only, for this host only and for all of its paths (RFC 6265bis, 4.1.3.2)."""
CSRF_HEADER = "x-csrf-token"
MOST_OF_ONE_ACTOR = 20
"""Browsers in which one key or user is signed in; one more signs the oldest out."""
DEFAULT_PAGE = 50
_ALPHABET = string.digits + string.ascii_lowercase
_ID_LENGTH = 26
_VALUE = re.compile(rf"([{_ALPHABET}]{{{_ID_LENGTH}}})\.[A-Za-z0-9_-]{{43}}")
_SAFE = frozenset({"GET", "HEAD"})
"""Methods that change nothing: no contract binds anything else to them, which a test holds."""


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A browser that is signed in. `actor` is `apiKeys/{id}` or `users/{id}`; `provider` is the id of the identity
    provider whose token signed it in, empty for keys. Times are UTC."""

    session_id: str
    tenant: str
    actor: str
    provider: str
    scopes: frozenset[str]
    create_time: datetime
    expire_time: datetime
    secret_hash: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"browserSessions/{self.session_id}"


class BrowserSessionStore(Protocol):
    """The browser sessions of all tenants."""

    async def add(self, session: BrowserSession) -> None:
        """Keeps it, and ends the oldest of its actor beyond MOST_OF_ONE_ACTOR.

        FailedPrecondition TENANT_UNKNOWN where there is no such tenant, or its identity provider is gone.
        """
        ...

    async def get(self, tenant: str, session_id: str) -> BrowserSession | None:
        """The tenant's session of that id."""
        ...

    async def find(self, session_id: str) -> BrowserSession | None:
        """The session of that id, of whatever tenant."""
        ...

    async def list(self, tenant: str, actor: str, after: str, limit: int) -> Sequence[BrowserSession]:
        """Up to `limit` of the tenant's that `actor` (empty: anybody) signed in, after that id, in the order of ids."""
        ...

    async def delete(self, tenant: str, session_id: str) -> None:
        """Ends it, where it is there."""
        ...

    async def forget(self, limit: int) -> int:
        """Drops up to `limit` of those that have expired; answers how many."""
        ...


class BrowserSecrets:
    """What is in cookies and what is kept of it, under keys that follow from the pepper, one for each purpose."""

    def __init__(self, pepper: str) -> None:
        self._cookie_key = hmac.digest(pepper.encode(), b"pagemesh-browser-cookie-v1", hashlib.sha256)
        self._csrf_key = hmac.digest(pepper.encode(), b"pagemesh-browser-csrf-v1", hashlib.sha256)

    def make(self) -> tuple[str, str]:
        """The id of a new session and its cookie's value, which has 256 random bits besides the id."""
        session_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
        return session_id, f"{session_id}.{secrets.token_urlsafe(32)}"

    def hash(self, value: str) -> bytes:
        """What is kept of a cookie's value: 32 bytes."""
        return hmac.digest(self._cookie_key, value.encode(), hashlib.sha256)

    def csrf_token(self, session_id: str) -> str:
        """What changing calls of a session have to carry besides its cookie: 43 characters of base64url.

        It is bound to the session, so it can be told again, and another session's is none (OWASP, Cross-Site Request
        Forgery Prevention Cheat Sheet, "HMAC based token pattern").
        """
        digest = hmac.digest(self._csrf_key, session_id.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def cookies_in(header: str) -> list[str]:
    """The values of our cookie in a `Cookie` header, as often as it is there."""
    pairs = (pair.partition("=") for pair in header.split(";"))
    return [value.strip() for name, _, value in pairs if name.strip() == COOKIE]


class BrowserSessions:
    """Signs browsers in and out."""

    def __init__(
        self,
        *,
        store: BrowserSessionStore,
        keys: KeyStore,
        secrets: BrowserSecrets,
        clock: Clock,
        lifetime: timedelta,
    ) -> None:
        self._store = store
        self._keys = keys
        self._secrets = secrets
        self._clock = clock
        self._lifetime = lifetime

    async def sign_in(
        self, caller: Caller, scopes: frozenset[str], *, within: str = "", provider: str = ""
    ) -> tuple[BrowserSession, str]:
        """A new session of the caller, and its cookie's value, which is kept nowhere. No scopes means all of them.

        `within` is the session that the call is made in, `provider` the id of the identity provider whose token it is
        made with. Raises FailedPrecondition KEY_NEEDED (within a session of any kind: it would never end), KEY_ENDING
        (nothing is left of the key's time), PermissionDenied SCOPE_NOT_GRANTABLE.
        """
        kind, _, ident = caller.actor.partition("/")
        if within or kind not in ("apiKeys", "users"):
            raise FailedPrecondition(
                "KEY_NEEDED", "Sign in with an API key or with the token of an identity provider, not with a session."
            )
        lacking = sorted(scopes - caller.scopes)
        if lacking:
            raise PermissionDenied(
                "SCOPE_NOT_GRANTABLE",
                f"A session has only scopes of its caller; yours lacks {', '.join(lacking)}.",
                metadata={"scopes": " ".join(lacking)},
            )
        now = self._clock()
        expires = now + self._lifetime
        if kind == "apiKeys":
            stored = await self._keys.find(ident)
            if stored is None or stored.key.tenant != caller.tenant:
                raise FailedPrecondition("KEY_NEEDED", "The key is gone. Sign in with another one.")
            expires = min(expires, stored.key.expire_time or expires)
        if expires <= now + timedelta(seconds=1):
            raise FailedPrecondition("KEY_ENDING", "The key ends in less than a second. Use another one.")
        session_id, value = self._secrets.make()
        hashed = self._secrets.hash(value)
        session = BrowserSession(
            session_id, caller.tenant, caller.actor, provider, scopes or caller.scopes, now, expires, hashed
        )
        await self._store.add(session)
        return session, value

    async def current(self, caller: Caller, within: str) -> BrowserSession:
        """The session that a call is made in. Raises FailedPrecondition BROWSER_SESSION_NEEDED."""
        kind, _, session_id = within.partition("/")
        found = await self._store.get(caller.tenant, session_id) if kind == "browserSessions" else None
        if found is None:
            raise FailedPrecondition("BROWSER_SESSION_NEEDED", "The call is made in no browser session.")
        return found

    def csrf_token(self, session: BrowserSession) -> str:
        """What its changing calls have to carry."""
        return self._secrets.csrf_token(session.session_id)

    async def list(self, caller: Caller, page_size: int, page_token: str) -> tuple[Sequence[BrowserSession], str]:
        """A part of the caller's sessions, with `keys.admin` of the tenant's, and the token for the next one."""
        size = page_size or DEFAULT_PAGE
        actor = "" if "keys.admin" in caller.scopes else caller.actor
        found = await self._store.list(caller.tenant, actor, page_token, size + 1)
        return found[:size], found[size - 1].session_id if len(found) > size else ""

    async def sign_out(self, caller: Caller, session_id: str) -> None:
        """Ends a session of the caller, or with `keys.admin` any of the tenant.

        Raises NotFound BROWSER_SESSION_NOT_FOUND.
        """
        found = await self._store.get(caller.tenant, session_id)
        if found is None or ("keys.admin" not in caller.scopes and caller.actor != found.actor):
            raise NotFound("BROWSER_SESSION_NOT_FOUND", "There is no such session that is yours to end.")
        await self._store.delete(caller.tenant, session_id)


class BrowserSessionCheck:
    """Tells who sends a cookie. What was looked up is remembered, and forgotten when a session is ended."""

    def __init__(
        self,
        *,
        store: BrowserSessionStore,
        secrets: BrowserSecrets,
        authenticator: Authenticator,
        issuers: OidcCheck,
        known: FreshCache[str, BrowserSession],
        clock: Clock,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._secrets = secrets
        self._authenticator = authenticator
        self._issuers = issuers
        self._known = known
        self._clock = clock
        self._monotonic_s = monotonic_s

    async def check(self, values: Sequence[str], method: str, fields: Mapping[str, str]) -> Principal | Denial:
        """Who it is now. `values` are those of our cookie in the request, `fields` its headers in lower case.

        That a request was forged is told only to those whose cookie is right: everybody else learns nothing.
        """
        session = await self._session(values)
        if isinstance(session, Denial):
            return session
        found = await self._principal(session)
        if isinstance(found, Denial):
            return found
        if fields.get("sec-fetch-site") == "cross-site":
            return Denial.CROSS_SITE
        given = fields.get(CSRF_HEADER, "").encode()
        if method not in _SAFE and not hmac.compare_digest(
            given, self._secrets.csrf_token(session.session_id).encode()
        ):
            return Denial.CSRF_TOKEN_WRONG
        return replace(found, scopes=session.scopes & found.scopes, session=session.name)

    def changed(self, kind: str, name: str) -> None:
        """A session was ended."""
        if kind == "browserSessions":
            self._known.drop(name)

    def missed(self) -> None:
        """Any may have been ended."""
        self._known.clear()

    async def _session(self, values: Sequence[str]) -> BrowserSession | Denial:
        form = _VALUE.fullmatch(values[0]) if len(values) == 1 else None
        if form is None:
            return Denial.MALFORMED
        found = self._known.get(form[1])
        if found is None:
            changes, now_s = self._known.changes, self._monotonic_s()
            found = await self._store.find(form[1])
            if found is not None:
                self._known.put(form[1], found, looked_up_s=now_s, changes=changes)
        right = hmac.compare_digest(found.secret_hash if found else bytes(32), self._secrets.hash(values[0]))
        return found if found is not None and right else Denial.UNKNOWN

    async def _principal(self, session: BrowserSession) -> Principal | Denial:
        if session.expire_time <= self._clock():
            return Denial.EXPIRED
        kind, _, ident = session.actor.partition("/")
        if kind == "apiKeys":
            return await self._authenticator.standing(ident)
        return await self._issuers.standing(session.tenant, ident)
