"""Making, listing, rotating and ending keys."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.ledger.domain import refusals
from services.ledger.domain.checks import check_name, check_time, invalid_field
from services.ledger.domain.identity_ports import UserStore
from services.ledger.domain.keys import ApiKey, KeyHasher, KeyMint, KeyPlace, StoredKey
from services.ledger.domain.parts import Part, invalid_token, part_of
from services.ledger.domain.ports import Clock, KeyStore
from services.ledger.domain.values import Caller
from services.runtime.errors import FailedPrecondition, PermissionDenied

DEFAULT_OVERLAP = timedelta(hours=24)
MOST_OVERLAP = timedelta(days=7)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class KeyRing:
    """The keys of the caller's tenant. `known_scopes` are the scopes that the contract speaks of.

    Whatever hands a credential out gives no more than the caller has: scopes, lifetime, and the project that the
    caller's own key is bound to.
    """

    def __init__(
        self,
        *,
        keys: KeyStore,
        users: UserStore,
        hasher: KeyHasher,
        mint: KeyMint,
        clock: Clock,
        known_scopes: frozenset[str],
    ) -> None:
        self._keys = keys
        self._users = users
        self._hasher = hasher
        self._mint = mint
        self._clock = clock
        self._known_scopes = known_scopes

    async def create(
        self,
        caller: Caller,
        display_name: str,
        scopes: frozenset[str],
        expire_time: datetime | None,
        *,
        project: str = "",
        user: str = "",
        within: str = "",
    ) -> tuple[ApiKey, str]:
        """Makes a key for the caller's tenant; answers it with its credential, which is kept nowhere. `project` and
        `user` are bare ids; what is not named is that of the caller, so that whatever a user makes ends with the user.
        `within` is the session that the call is made in.

        Raises InvalidArgument SCOPE_UNKNOWN or INVALID_FIELD, PermissionDenied SCOPE_NOT_GRANTABLE (the caller or the
        user's role lacks a scope), EXPIRY_NOT_GRANTABLE (the new key would outlive the caller's) or
        PROJECT_NOT_GRANTABLE (the caller's key belongs to another project), NotFound PROJECT_NOT_FOUND or
        USER_NOT_FOUND, FailedPrecondition TENANT_UNKNOWN, or KEY_NEEDED (in a session, which the key would outlive).
        """
        check_no_session(within)
        self._check_known(scopes)
        check_grantable(caller, scopes)
        now = self._clock()
        check_name(display_name, "display_name")
        if expire_time is not None:
            check_time(expire_time, "expire_time")
            if expire_time <= now:
                raise invalid_field("expire_time", "must be in the future")
        await self._check_expiry(caller, expire_time)
        project = project or _project_of(caller)
        check_project(caller, project)
        user = user or await self._user_of(caller)
        if user:
            await self._check_role(caller.tenant, user, scopes)
        key_id, credential = self._mint.credential()
        key = ApiKey(key_id, caller.tenant, display_name, scopes, now, expire_time, project=project, user=user)
        await self._keys.add(key, self._hasher.digest(credential))
        return key, credential

    async def get(self, caller: Caller, key_id: str) -> ApiKey:
        """A key of the caller's tenant. Raises NotFound KEY_NOT_FOUND."""
        return (await self._find(caller, key_id)).key

    async def list(self, caller: Caller, page_size: int, page_token: str) -> Part[ApiKey]:
        """The keys of the caller's tenant, newest first. Raises InvalidArgument INVALID_PAGE_TOKEN."""

        async def read(after: str, limit: int) -> Sequence[ApiKey]:
            return await self._keys.list(caller.tenant, _parse(after) if after else None, limit)

        return await part_of(f"{caller.tenant}/apiKeys", page_size, page_token, read=read, place=_place)

    async def rotate(self, caller: Caller, key_id: str, overlap: timedelta, *, within: str = "") -> tuple[ApiKey, str]:
        """Gives a key a new secret; answers it with its new credential, which is kept nowhere. The present secret works
        for the overlap, from zero to MOST_OVERLAP. `within` is the session that the call is made in.

        Raises NotFound KEY_NOT_FOUND, FailedPrecondition KEY_ENDED (it was revoked or has expired) or KEY_NEEDED (in a
        session), and as `create` does where the caller could not have made the key.
        """
        if not timedelta() <= overlap <= MOST_OVERLAP:
            raise invalid_field("overlap", "must be between 0 and 7 days")
        check_no_session(within)
        key = (await self._find(caller, key_id)).key
        check_grantable(caller, key.scopes)
        check_project(caller, key.project)
        await self._check_expiry(caller, key.expire_time)
        now = self._clock()
        if key.revoke_time is not None or (key.expire_time is not None and key.expire_time <= now):
            raise _ended()
        credential = self._mint.secret_of(key_id)
        wanted = replace(key, rotate_time=now, previous_expire_time=now + overlap)
        rotated = await self._keys.rotate(wanted, self._hasher.digest(credential))
        if rotated is None:
            raise _ended()
        return rotated, credential

    async def revoke(self, caller: Caller, key_id: str) -> ApiKey:
        """Ends a key of the caller's tenant; again, it answers the same. Raises NotFound KEY_NOT_FOUND."""
        key = await self._keys.revoke(caller.tenant, key_id, self._clock())
        if key is None:
            raise refusals.key_not_found()
        return key

    async def _find(self, caller: Caller, key_id: str) -> StoredKey:
        stored = await self._keys.find(key_id)
        if stored is None or stored.key.tenant != caller.tenant:
            raise refusals.key_not_found()
        return stored

    async def _user_of(self, caller: Caller) -> str:
        kind, _, name = caller.actor.partition("/")
        if kind == "users":
            return name
        maker = await self._keys.find(name)
        return maker.key.user if maker is not None else ""

    def _check_known(self, scopes: frozenset[str]) -> None:
        unknown = sorted(scopes - self._known_scopes)
        if unknown:
            known = ", ".join(sorted(self._known_scopes))
            raise invalid_field(
                "scopes", f"no such scope: {', '.join(unknown)}; there are {known}", reason="SCOPE_UNKNOWN"
            )

    async def _check_expiry(self, caller: Caller, expire_time: datetime | None) -> None:
        maker = await self._keys.find(caller.actor.removeprefix("apiKeys/"))
        limit = maker.key.expire_time if maker is not None else None
        if limit is not None and (expire_time is None or expire_time > limit):
            raise PermissionDenied(
                "EXPIRY_NOT_GRANTABLE",
                f"A key cannot make one that outlives it. Set expire_time to {limit.isoformat()} or before.",
            )

    async def _check_role(self, tenant: str, user_id: str, scopes: frozenset[str]) -> None:
        user = await self._users.find(tenant, user_id)
        if user is None:
            raise refusals.user_not_found()
        lacking = sorted(scopes - user.role.scopes)
        if lacking:
            raise PermissionDenied(
                "SCOPE_NOT_GRANTABLE",
                f"The user's role {user.role.value} does not allow {', '.join(lacking)}.",
                metadata={"scopes": " ".join(lacking)},
            )


def check_grantable(caller: Caller, scopes: frozenset[str]) -> None:
    """Raises PermissionDenied SCOPE_NOT_GRANTABLE where the caller lacks one of them."""
    lacking = sorted(scopes - caller.scopes)
    if lacking:
        raise PermissionDenied(
            "SCOPE_NOT_GRANTABLE",
            f"A key grants only scopes that it has itself; yours lacks {', '.join(lacking)}.",
            metadata={"scopes": " ".join(lacking)},
        )


def _project_of(caller: Caller) -> str:
    return caller.project.removeprefix("projects/")


def check_project(caller: Caller, project: str) -> None:
    """Raises PermissionDenied PROJECT_NOT_GRANTABLE where the caller's key belongs to another project."""
    if _project_of(caller) not in ("", project):
        raise PermissionDenied(
            "PROJECT_NOT_GRANTABLE", f"Your key belongs to {caller.project}; it handles keys of that project only."
        )


def check_no_session(within: str) -> None:
    """Raises FailedPrecondition KEY_NEEDED within a session: a stolen one is to be worth what is left of its half hour,
    so nothing that it makes may outlive it."""
    if within:
        raise FailedPrecondition("KEY_NEEDED", "A session makes nothing that lets somebody in. Call with an API key.")


def _ended() -> FailedPrecondition:
    return FailedPrecondition("KEY_ENDED", "The key was revoked or has expired. Make a new one.")


def _place(key: ApiKey) -> str:
    return f"{(key.create_time - _EPOCH) // _MICROSECOND}/{key.key_id}"


def _parse(place: str) -> KeyPlace:
    micros, _, key_id = place.partition("/")
    try:
        return KeyPlace(_EPOCH + timedelta(microseconds=int(micros)), key_id)
    except (ValueError, OverflowError) as exc:
        raise invalid_token() from exc
