"""API keys that demand signed requests: a stolen key is worth nothing without the private key beside it."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.ledger.domain.fresh_cache import FreshCache
from services.ledger.domain.identity import Denial
from services.ledger.domain.key_ring import check_grantable, check_no_session, check_project
from services.ledger.domain.ports import Clock, KeyStore
from services.ledger.domain.request_signatures import ALGORITHM, Message, Signature, read_signature
from services.ledger.domain.values import Caller
from services.runtime.errors import NotFound

MAX_AGE = timedelta(minutes=5)
MAX_AHEAD = timedelta(seconds=60)
_SHORTEST_NONCE = 16
_ALWAYS = frozenset({"@method", "@authority", "@path"})
_WITH_BODY = ("POST", "PUT", "PATCH")


class RequestKeyStore(Protocol):
    """The public keys that requests of an API key are checked with, and the nonces that were used."""

    async def set(self, tenant: str, key_id: str, public_key: bytes | None, now: datetime) -> None:
        """Has the API key demand signatures by that key from now on; None: none any more."""
        ...

    async def get(self, tenant: str, key_id: str) -> bytes | None:
        """The public key, 32 bytes; None where the API key demands none."""
        ...

    async def use(self, tenant: str, key_id: str, nonce: bytes, forget_time: datetime) -> bool:
        """Keeps the nonce's digest until then; False where it was used already."""
        ...

    async def forget(self, limit: int) -> int:
        """Drops up to `limit` nonces whose time has passed; answers how many."""
        ...


class RequestKeys:
    """Sets what keys demand."""

    def __init__(self, *, store: RequestKeyStore, keys: KeyStore, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    async def set(self, caller: Caller, key_id: str, public_key: bytes, *, within: str = "") -> None:
        """Has a key of the caller's tenant demand signatures, or with empty bytes no longer. It decides who can use the
        key, so the caller has to be able to make it. `within` is the session that the call is made in.

        Raises FailedPrecondition KEY_NEEDED in a session, NotFound KEY_NOT_FOUND, PermissionDenied SCOPE_NOT_GRANTABLE
        or PROJECT_NOT_GRANTABLE.
        """
        check_no_session(within)
        key = await self._keys.find(key_id)
        if key is None or key.key.tenant != caller.tenant:
            raise NotFound("KEY_NOT_FOUND", "There is no such API key.")
        check_grantable(caller, key.key.scopes)
        check_project(caller, key.key.project)
        await self._store.set(caller.tenant, key_id, public_key or None, self._clock())


class SignatureCheck:
    """Holds requests of keys that demand it against their signatures."""

    def __init__(
        self,
        *,
        store: RequestKeyStore,
        demanded: FreshCache[str, bytes],
        clock: Clock,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._demanded = demanded
        self._clock = clock
        self._monotonic_s = monotonic_s

    async def denial(self, tenant: str, key_id: str, message: Message, port: int) -> Denial | None:
        """Why the request of that key may not pass; None where nothing is demanded, or all is there.

        `port` is where the edge listens: it takes the port off the authority, which the client has signed with it.
        """
        public_key = await self._demand(tenant, key_id)
        if not public_key:
            return None
        if "signature" not in message.fields and "signature-input" not in message.fields:
            return Denial.REQUEST_UNSIGNED
        signature = read_signature(message.fields)
        if signature is None or signature.alg not in ("", ALGORITHM) or len(signature.nonce) < _SHORTEST_NONCE:
            return Denial.SIGNATURE_MALFORMED
        if signature.keyid != f"apiKeys/{key_id}" or signature.created is None:
            return Denial.SIGNATURE_MALFORMED
        if not _required(message) <= set(signature.covered):
            return Denial.SIGNATURE_INCOMPLETE
        if not self._is_timely(signature):
            return Denial.SIGNATURE_EXPIRED
        key = Ed25519PublicKey.from_public_bytes(public_key)
        with_port = Message(message.method, f"{message.authority}:{port}", message.path, message.fields)
        if not signature.fits(message, key) and not signature.fits(with_port, key):
            return Denial.SIGNATURE_WRONG
        # Last: only who has the private key fills the table.
        forget = datetime.fromtimestamp(signature.created, UTC) + MAX_AGE + MAX_AHEAD
        digest = hashlib.sha256(signature.nonce.encode()).digest()
        fresh = await self._store.use(tenant, key_id, digest, forget)
        return None if fresh else Denial.SIGNATURE_REPLAYED

    def changed(self, kind: str, name: str) -> None:
        """A key demands something else."""
        if kind == "requestKeys":
            self._demanded.drop(name)

    def missed(self) -> None:
        """Any may."""
        self._demanded.clear()

    async def _demand(self, tenant: str, key_id: str) -> bytes:
        """Empty where nothing is demanded."""
        known = self._demanded.get(key_id)
        if known is None:
            changes, now_s = self._demanded.changes, self._monotonic_s()
            known = await self._store.get(tenant, key_id) or b""
            self._demanded.put(key_id, known, looked_up_s=now_s, changes=changes)
        return known

    def _is_timely(self, signature: Signature) -> bool:
        now = self._clock().timestamp()
        created = signature.created or 0
        ahead_s, age_s = MAX_AHEAD.total_seconds(), MAX_AGE.total_seconds()
        return now - age_s <= created <= now + ahead_s and (signature.expires is None or signature.expires > now)


def _required(message: Message) -> frozenset[str]:
    required = set(_ALWAYS)
    if "?" in message.path:
        required.add("@query")
    # gRPC messages are framed as they flow and have no digest; what they are is not signed.
    grpc = message.fields.get("content-type", "").startswith("application/grpc")
    bodiless = message.method not in _WITH_BODY or message.fields.get("content-length") == "0"
    if "content-digest" in message.fields or not (grpc or bodiless):
        required.add("content-digest")
    return frozenset(required)
