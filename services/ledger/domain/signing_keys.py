"""The keys that sessions are signed with: made ahead of their time, shared by all replicas, kept while they count."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.ledger.domain.keys import random_key_id
from services.ledger.domain.ports import Clock
from services.ledger.domain.sealing import Sealer
from services.runtime.errors import Unavailable

SESSION_LIFETIME = timedelta(minutes=30)
_AFTER = timedelta(minutes=5)
"""How much longer than the lifetime a key stays after its last signature: replicas' clocks differ."""
RELOAD_S = 1.0
"""How often an unknown key id may cause a look into the database: tokens with made-up ids cost no more than that."""


@dataclass(frozen=True, slots=True)
class StoredSigningKey:
    """A key as it is kept; times are UTC."""

    kid: str
    public_key: bytes
    sealed_private_key: bytes = field(repr=False)
    create_time: datetime
    sign_from: datetime
    sign_until: datetime
    verify_until: datetime

    def bound_to(self) -> bytes:
        """What the seal vouches for: whoever can only write to the database brings no key of their own in."""
        times = (self.sign_from, self.sign_until, self.verify_until)
        parts = [self.kid, self.public_key.hex(), *(str(int(time.timestamp() * 1_000_000)) for time in times)]
        return hashlib.sha256("|".join(parts).encode()).digest()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that this ledger vouches for."""

    stored: StoredSigningKey
    private: Ed25519PrivateKey = field(repr=False)
    public: Ed25519PublicKey

    @property
    def kid(self) -> str:
        """Its name, in the header of its tokens."""
        return self.stored.kid

    @property
    def x(self) -> str:
        """The public key in base64url, as RFC 8037 writes it."""
        return base64.urlsafe_b64encode(self.stored.public_key).rstrip(b"=").decode()


Plan = Callable[[Sequence[StoredSigningKey]], StoredSigningKey | None]


class SigningKeyStore(Protocol):
    """The signing keys of all replicas."""

    async def agree(self, now: datetime, plan: Plan) -> Sequence[StoredSigningKey]:
        """Shows `plan` the keys, adds the one that it wants, drops those whose `verify_until` has passed, answers the
        rest. One replica at a time: nobody plans from what another is about to change."""
        ...

    async def all(self) -> Sequence[StoredSigningKey]:
        """Every key that is kept."""
        ...


class SigningKeys:
    """What this replica knows of the keys. A key signs for `period`; the next is there half of that before."""

    def __init__(
        self,
        *,
        store: SigningKeyStore,
        sealer: Sealer,
        clock: Clock,
        monotonic_s: Callable[[], float],
        period: timedelta,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._period = period
        self._keys: dict[str, SigningKey] = {}
        self._loaded_s = float("-inf")

    async def rotate(self) -> None:
        """Makes the next key where it is time, and learns of those that other replicas made."""
        now = self._clock()
        self._learn(await self._store.agree(now, self._plan))

    async def signing(self) -> SigningKey:
        """The key to sign with now. Raises Unavailable."""
        key = self._choose()
        if key is None:
            await self.rotate()
            key = self._choose()
        if key is None:
            raise Unavailable("NO_SIGNING_KEY", "No key to sign with is there yet. Try again.", retry_after_s=1.0)
        return key

    async def verifying(self, kid: str) -> SigningKey | None:
        """The key of that name, as long as its tokens may be believed."""
        if kid not in self._keys and self._monotonic_s() - self._loaded_s >= RELOAD_S:
            self._loaded_s = self._monotonic_s()
            self._learn(await self._store.all())
        key = self._keys.get(kid)
        return None if key is None or key.stored.verify_until <= self._clock() else key

    async def published(self) -> list[SigningKey]:
        """All that are believed, or will be, newest first. Raises Unavailable where none is known."""
        await self.signing()
        now = self._clock()
        known = [key for key in self._keys.values() if key.stored.verify_until > now]
        return sorted(known, key=lambda key: key.stored.sign_from, reverse=True)

    def changed(self, kind: str, name: str) -> None:
        """Another replica made a key: the next unknown name is looked up at once."""
        if kind == "signingKeys":
            self._loaded_s = float("-inf")

    def missed(self) -> None:
        """What was missed is looked up when it is asked for."""
        self._loaded_s = float("-inf")

    def _choose(self) -> SigningKey | None:
        now = self._clock()
        usable = [key for key in self._keys.values() if key.stored.verify_until >= now + SESSION_LIFETIME]
        begun = [key for key in usable if key.stored.sign_from <= now]
        if begun:
            return max(begun, key=lambda key: key.stored.sign_from)
        # By this clock none has begun; by that of the replica which made it, it has.
        return min(usable, key=lambda key: key.stored.sign_from, default=None)

    def _plan(self, known: Sequence[StoredSigningKey]) -> StoredSigningKey | None:
        now = self._clock()
        last = max((key.sign_until for key in known if self._opened(key) is not None), default=now)
        if last - now > self._period / 2:
            return None
        return self._made(now, max(last, now))

    def _made(self, now: datetime, sign_from: datetime) -> StoredSigningKey:
        private = Ed25519PrivateKey.generate()
        sign_until = sign_from + self._period
        unsealed = StoredSigningKey(
            kid=random_key_id(),
            public_key=private.public_key().public_bytes_raw(),
            sealed_private_key=b"",
            create_time=now,
            sign_from=sign_from,
            sign_until=sign_until,
            verify_until=sign_until + SESSION_LIFETIME + _AFTER,
        )
        sealed = self._sealer.seal(private.private_bytes_raw(), bound_to=unsealed.bound_to())
        return StoredSigningKey(
            unsealed.kid,
            unsealed.public_key,
            sealed,
            now,
            sign_from,
            sign_until,
            unsealed.verify_until,
        )

    def _learn(self, stored: Sequence[StoredSigningKey]) -> None:
        opened = [key for key in map(self._opened, stored) if key is not None]
        self._keys = {key.kid: key for key in opened}

    def _opened(self, stored: StoredSigningKey) -> SigningKey | None:
        """None for a key that was sealed under another pepper, or that somebody put into the database."""
        known = self._keys.get(stored.kid)
        if known is not None and known.stored == stored:
            return known
        raw = self._sealer.open(stored.sealed_private_key, bound_to=stored.bound_to())
        if raw is None:
            return None
        private = Ed25519PrivateKey.from_private_bytes(raw)
        public = private.public_key()
        return SigningKey(stored, private, public) if public.public_bytes_raw() == stored.public_key else None
