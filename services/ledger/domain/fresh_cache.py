"""What was looked up lately and may be believed as long as changes are heard."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from services.ledger.domain.key_cache import HEARD_WITHIN_S

Name = TypeVar("Name", bound=Hashable)
Value = TypeVar("Value")


class Follower(Protocol):
    """Is told what changed, by whoever listens for it."""

    def changed(self, kind: str, name: str) -> None:
        """`kind` is such as `sessions`, `name` the id of what changed."""
        ...

    def missed(self) -> None:
        """Changes may have passed unheard: nothing that was looked up before may be believed."""
        ...


class FreshCache(Generic[Name, Value]):
    """At most `max_entries` answers, the least recently used go first.

    An answer lasts `ttl_s` while `hearing` says that changes are heard, and HEARD_WITHIN_S otherwise.
    """

    def __init__(
        self, *, max_entries: int, ttl_s: float, monotonic_s: Callable[[], float], hearing: Callable[[], bool]
    ) -> None:
        self._max_entries = max_entries
        self._ttl_s = ttl_s
        self._monotonic_s = monotonic_s
        self._hearing = hearing
        self._entries: OrderedDict[Name, tuple[Value, float]] = OrderedDict()
        self.changes = 0
        """Counts what was dropped; tells a look-up that a change arrived while it was under way."""

    def get(self, name: Name) -> Value | None:
        """The answer, if it may still be believed."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        value, looked_up_s = entry
        lasts_s = self._ttl_s if self._hearing() else min(self._ttl_s, HEARD_WITHIN_S)
        if self._monotonic_s() - looked_up_s >= lasts_s:
            del self._entries[name]
            return None
        self._entries.move_to_end(name)
        return value

    def put(self, name: Name, value: Value, *, looked_up_s: float, changes: int) -> None:
        """Keeps what was read at or after `looked_up_s`, unless something changed since `changes` was read."""
        if changes != self.changes:
            return
        self._entries[name] = value, looked_up_s
        self._entries.move_to_end(name)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def drop(self, name: Name) -> None:
        """Forgets one answer."""
        self.changes += 1
        self._entries.pop(name, None)

    def clear(self) -> None:
        """Forgets everything."""
        self.changes += 1
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
