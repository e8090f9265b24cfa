"""That a document was there a moment ago, so that not every answer out of a cache asks the extractor again."""

import time
from collections import OrderedDict
from collections.abc import Callable

from services.summarizer.domain.ports import PageSource

MEMORY_S = 1.0
"""So long after a document is gone, a cached answer may still be given. Not after a deletion that was answered, which
has emptied the cache, and not after the document's own expiry, which is known."""
MOST = 10_000
"""Documents that are remembered; 2 MB."""


class Sightings:
    """Documents of all tenants that were seen lately. It belongs to one event loop. `now_s` is Unix time."""

    def __init__(
        self,
        pages: PageSource,
        *,
        now_s: Callable[[], float],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pages = pages
        self._now_s = now_s
        self._monotonic_s = monotonic_s
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def exists(self, tenant: str, document: str) -> None:
        """NotFound where the tenant, which is the caller's, has no such document."""
        # Before the question: what is answered may be old by as much as the answer took.
        asked_at = self._monotonic_s()
        if self._until.get((tenant, document), asked_at) > asked_at:
            return
        left_s = MEMORY_S
        expires_at = await self._pages.exists(document)
        if expires_at is not None:
            left_s = min(left_s, expires_at - self._now_s())
        self._until[tenant, document] = asked_at + left_s
        self._until.move_to_end((tenant, document))
        if len(self._until) > MOST:
            self._until.popitem(last=False)
