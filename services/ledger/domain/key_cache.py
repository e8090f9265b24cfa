"""Keys that were checked lately, so that most calls need no database."""

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from services.ledger.domain.principals import Principal

HEARD_WITHIN_S = 0.9
"""How long the cache believes that it hears of revocations, and how long an entry lasts when it does not hear.

Below the second within which a revocation has to be effective everywhere: whichever of the two bounds holds, a revoked
key is refused at most this long after its revocation.
"""


_PROOFS = 3
"""Of a key: its present secret, for a while the one before, and whatever else stands for it."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Who a credential is, and until when."""

    principal: Principal
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class _Entry:
    digest: bytes
    admission: Admission
    added_s: float


class KeyCache:
    """At most `max_keys` keys, the least recently used go first.

    It lives on being told of changes: whoever listens for them calls `heard` at short intervals, `drop_key`,
    `drop_tenant`, and `clear` after a gap. While nobody does so, entries last HEARD_WITHIN_S only.
    """

    def __init__(self, *, max_keys: int, ttl_s: float, monotonic_s: Callable[[], float]) -> None:
        self._max_keys = max_keys
        self._ttl_s = ttl_s
        self._monotonic_s = monotonic_s
        self._entries: OrderedDict[str, tuple[_Entry, ...]] = OrderedDict()
        self._heard_s = float("-inf")
        self.changes = 0
        """Counts what was dropped; tells a look-up that a change arrived while it was under way."""

    def get(self, key_id: str, digest: bytes) -> Admission | None:
        """Who it is, if it was checked with this digest and the answer may still be believed."""
        for entry in self._entries.get(key_id, ()):
            if not hmac.compare_digest(entry.digest, digest):
                continue
            lasts_s = self._ttl_s if self.hearing else min(self._ttl_s, HEARD_WITHIN_S)
            if self._monotonic_s() - entry.added_s >= lasts_s:
                return None
            self._entries.move_to_end(key_id)
            return entry.admission
        return None

    def put(self, key_id: str, digest: bytes, admission: Admission, *, looked_up_s: float, changes: int) -> None:
        """Keeps what was read at or after `looked_up_s`, unless something changed since `changes` was read."""
        if changes != self.changes:
            return
        others = [entry for entry in self._entries.get(key_id, ()) if entry.digest != digest]
        self._entries[key_id] = (_Entry(digest, admission, looked_up_s), *others)[:_PROOFS]
        self._entries.move_to_end(key_id)
        if len(self._entries) > self._max_keys:
            self._entries.popitem(last=False)

    @property
    def hearing(self) -> bool:
        """Whether changes are heard."""
        return self._monotonic_s() - self._heard_s < HEARD_WITHIN_S

    def heard(self, at_s: float) -> None:
        """Every change up to `at_s` has been told."""
        self._heard_s = at_s

    def drop_key(self, key_id: str) -> None:
        """Forgets one key."""
        self.changes += 1
        self._entries.pop(key_id, None)

    def drop_tenant(self, tenant: str) -> None:
        """Forgets the keys of one tenant."""
        self.changes += 1
        for key_id in [i for i, found in self._entries.items() if found[0].admission.principal.tenant == tenant]:
            del self._entries[key_id]

    def clear(self) -> None:
        """Forgets everything: changes may have been missed."""
        self.changes += 1
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
