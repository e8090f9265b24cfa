"""OpenID Connect issuers of tenants, and who their tokens are."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import jwt

from services.ledger.domain.checks import check_text, invalid_field
from services.ledger.domain.fresh_cache import FreshCache
from services.ledger.domain.identity import Denial, Principal
from services.ledger.domain.issuer_keys import IssuerKeys
from services.ledger.domain.jwt_form import JwtForm
from services.ledger.domain.key_ring import check_grantable, check_no_session
from services.ledger.domain.keys import random_key_id
from services.ledger.domain.plans import UNLIMITED, Plan
from services.ledger.domain.ports import Clock
from services.ledger.domain.roles import Role
from services.ledger.domain.values import Caller
from services.runtime.errors import FailedPrecondition, NotFound, Unavailable

DEFAULT_PAGE = 50
_LEEWAY_S = 60
"""How far the clock of an issuer may be off."""
_MOST_AUDIENCES = 10
_LONGEST_EMAIL = 254
_LATEST = 253_402_300_799
"""The last second of the year 9999."""


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """An issuer that a tenant believes. `issuer` and `audience` are what its tokens have in `iss` and `aud`."""

    provider_id: str
    tenant: str
    display_name: str
    issuer: str
    audience: str
    create_time: datetime

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"identityProviders/{self.provider_id}"


@dataclass(frozen=True, slots=True)
class StandingUser:
    """A user of a tenant, as far as it matters for who is let in."""

    user_id: str
    role: Role
    active: bool
    tenant_active: bool
    plan: Plan = UNLIMITED


class ProviderStore(Protocol):
    """The issuers of all tenants."""

    async def add(self, provider: IdentityProvider) -> None:
        """Keeps it. AlreadyExists ISSUER_IN_USE where its issuer and audience are taken, FailedPrecondition
        TENANT_UNKNOWN, ResourceExhausted TOO_MANY_ISSUERS where the tenant has MOST_PROVIDERS."""
        ...

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[IdentityProvider]:
        """Up to `limit` of the tenant's, after that id, in the order of their ids."""
        ...

    async def delete(self, tenant: str, provider_id: str) -> bool:
        """Drops it; answers whether the tenant had it."""
        ...

    async def find(self, issuer: str, audiences: Sequence[str]) -> Sequence[IdentityProvider]:
        """Those of whatever tenant with that issuer and one of the audiences; two at most."""
        ...


class StandingUserStore(Protocol):
    """The users of tenants, as tokens and sessions name them."""

    async def by_email(self, tenant: str, email: str) -> StandingUser | None:
        """The tenant's user with that address, which is in lower case."""
        ...

    async def by_id(self, tenant: str, user_id: str) -> StandingUser | None:
        """The tenant's user with that id."""
        ...


class IdentityProviders:
    """Adds, tells and drops the issuers of a tenant."""

    def __init__(self, *, providers: ProviderStore, keys: IssuerKeys, own_issuer: str, clock: Clock) -> None:
        self._providers = providers
        self._keys = keys
        self._own_issuer = own_issuer
        self._clock = clock

    async def create(
        self, caller: Caller, display_name: str, issuer: str, audience: str, *, within: str = ""
    ) -> IdentityProvider:
        """Believes an issuer from now on, once its keys could be fetched. Whoever runs it can be any user of the
        tenant, so the caller has to be able to do what an admin can. `within` is the session that the call is made in.

        Raises FailedPrecondition KEY_NEEDED in a session, PermissionDenied SCOPE_NOT_GRANTABLE, InvalidArgument
        INVALID_FIELD, FailedPrecondition ISSUER_REFUSED (no keys at that address) or
        TENANT_UNKNOWN, AlreadyExists ISSUER_IN_USE, ResourceExhausted TOO_MANY_ISSUERS.
        """
        check_no_session(within)
        check_grantable(caller, Role.ADMIN.scopes)
        check_text(display_name, "display_name")
        self._check_issuer(issuer)
        try:
            await self._keys.learn(issuer)
        except Unavailable as exc:
            raise FailedPrecondition("ISSUER_REFUSED", f"No keys could be had from this issuer: {exc.message}") from exc
        provider = IdentityProvider(random_key_id(), caller.tenant, display_name, issuer, audience, self._clock())
        await self._providers.add(provider)
        return provider

    async def list(self, caller: Caller, page_size: int, page_token: str) -> tuple[Sequence[IdentityProvider], str]:
        """A part of the tenant's issuers, and the token for the next one, empty at the end."""
        size = page_size or DEFAULT_PAGE
        found = await self._providers.list(caller.tenant, page_token, size + 1)
        return found[:size], found[size - 1].provider_id if len(found) > size else ""

    async def delete(self, caller: Caller, provider_id: str) -> None:
        """Believes it no longer. Raises NotFound ISSUER_NOT_FOUND."""
        if not await self._providers.delete(caller.tenant, provider_id):
            raise NotFound("ISSUER_NOT_FOUND", "There is no such identity provider.")

    def _check_issuer(self, issuer: str) -> None:
        try:
            parts = urlsplit(issuer)
            _ = parts.port  # ValueError where it is no number
        except ValueError as exc:
            raise invalid_field("issuer", "must be a URL") from exc
        if parts.scheme != "https" or not parts.hostname or any(sign in issuer for sign in "?#@"):
            raise invalid_field("issuer", "must be https://host, with a path at most")
        if issuer == self._own_issuer:
            raise invalid_field("issuer", "must not be this ledger itself")


@dataclass(frozen=True, slots=True)
class _Verified:
    """What an issuer has signed."""

    tenant: str
    provider_id: str
    email: str
    not_before: int
    expires: int


class OidcCheck:
    """Tells who the token of an issuer is.

    Everything is remembered for a moment, and forgotten when an issuer, a user or a tenant changes.
    """

    def __init__(
        self,
        *,
        providers: ProviderStore,
        users: StandingUserStore,
        keys: IssuerKeys,
        verified: FreshCache[bytes, _Verified],
        standing: FreshCache[tuple[str, str], StandingUser],
        known_scopes: frozenset[str],
        clock: Clock,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._providers = providers
        self._users = users
        self._keys = keys
        self._verified = verified
        self._standing = standing
        self._known_scopes = known_scopes
        self._clock = clock
        self._monotonic_s = monotonic_s

    async def remembered(self, token: str) -> Principal | Denial | None:
        """Who the token is, if it was checked lately."""
        verified = self._verified.get(_digest(token))
        return None if verified is None else await self._principal(verified)

    async def check(self, form: JwtForm) -> Principal | Denial:
        """Who it is, or why it is nobody. Raises Unavailable where the issuer's keys cannot be had."""
        changes, now_s = self._verified.changes, self._monotonic_s()
        provider = await self._provider_of(form.claims)
        if provider is None:
            return Denial.ISSUER_UNKNOWN
        key = await self._keys.find(provider.issuer, form.kid)
        if key is None:
            return Denial.SIGNER_UNKNOWN
        if form.algorithm != key.algorithm:
            return Denial.BAD_SIGNATURE
        try:
            claims = jwt.decode(
                form.token,
                key.public,
                algorithms=[key.algorithm],
                issuer=provider.issuer,
                audience=provider.audience,
                options={
                    "require": ["iss", "aud", "sub", "exp", "iat"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError:
            return Denial.BAD_SIGNATURE
        verified = _verified(provider, claims)
        if isinstance(verified, Denial):
            return verified
        self._verified.put(_digest(form.token), verified, looked_up_s=now_s, changes=changes)
        return await self._principal(verified)

    async def standing(self, tenant: str, user_id: str) -> Principal | Denial:
        """Who the user of that id is now, for whoever has proved by other means that it is theirs."""
        # No address is like an id: it has an @.
        return self._principal_of(tenant, await self._user(tenant, user_id, self._users.by_id))

    def changed(self, kind: str, name: str) -> None:
        """Rare enough that everything may be looked up again."""
        if kind == "identityProviders":
            self._verified.clear()
        elif kind == "tenants":  # or one of its users
            self._standing.clear()

    def missed(self) -> None:
        """Anything may have changed."""
        self._verified.clear()
        self._standing.clear()

    async def _provider_of(self, claims: dict[str, Any]) -> IdentityProvider | None:
        issuer, audience = claims.get("iss"), claims.get("aud")
        audiences: list[Any] = audience if isinstance(audience, list) else [audience]
        if not all(isinstance(each, str) and "\0" not in each for each in [issuer, *audiences]):
            return None
        if not 0 < len(audiences) <= _MOST_AUDIENCES:
            return None
        found = await self._providers.find(str(issuer), audiences)
        # A token for several parties has to say to whom it was given (OpenID Connect Core 1.0, 3.1.3.7).
        if len(found) != 1 or (len(audiences) > 1 and claims.get("azp") != found[0].audience):
            return None
        return found[0]

    async def _principal(self, verified: _Verified) -> Principal | Denial:
        now = self._clock().timestamp()
        if verified.expires + _LEEWAY_S <= now:
            return Denial.EXPIRED
        if verified.not_before - _LEEWAY_S > now:
            return Denial.NOT_YET_VALID
        user = await self._user(verified.tenant, verified.email, self._users.by_email)
        found = self._principal_of(verified.tenant, user)
        return found if isinstance(found, Denial) else replace(found, provider=verified.provider_id)

    def _principal_of(self, tenant: str, user: StandingUser | None) -> Principal | Denial:
        if user is None:
            return Denial.USER_UNKNOWN
        if not user.tenant_active:
            return Denial.TENANT_INACTIVE
        if not user.active:
            return Denial.USER_INACTIVE
        name = f"users/{user.user_id}"
        return Principal(
            tenant, name, "", user.role.scopes & self._known_scopes, user=name, role=user.role, plan=user.plan
        )

    async def _user(
        self, tenant: str, name: str, look_up: Callable[[str, str], Awaitable[StandingUser | None]]
    ) -> StandingUser | None:
        user = self._standing.get((tenant, name))
        if user is None:
            changes, now_s = self._standing.changes, self._monotonic_s()
            user = await look_up(tenant, name)
            if user is not None:
                self._standing.put((tenant, name), user, looked_up_s=now_s, changes=changes)
        return user


def _verified(provider: IdentityProvider, claims: dict[str, Any]) -> _Verified | Denial:
    expires, made = claims["exp"], claims["iat"]
    begins = claims.get("nbf", made)
    if not all(type(time) is int and 0 <= time <= _LATEST for time in (expires, made, begins)):
        return Denial.MALFORMED
    email = claims.get("email")
    # An address that nobody verified is whatever its owner typed.
    if claims.get("email_verified") is not True or not isinstance(email, str) or len(email) > _LONGEST_EMAIL:
        return Denial.EMAIL_UNVERIFIED
    if "\0" in email:
        return Denial.MALFORMED
    return _Verified(provider.tenant, provider.provider_id, email.lower(), max(made, begins), expires)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
