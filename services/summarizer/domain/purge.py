"""Erasing what was made of a document, when the document is erased."""

from collections.abc import Awaitable, Callable, Sequence

from services.summarizer.domain.ports import Results, SummaryCache

Erase = Callable[[str, str], Awaitable[int]]
"""Erases what was made of a document, by tenant and document; answers how much. Raises Unavailable."""


class PurgeDocument:
    """Erases answers and summaries. What was paid for them stays in the ledger."""

    def __init__(self, *, results: Results, cache: SummaryCache, also: Sequence[Erase] = ()) -> None:
        """`also` are erased last: what keeps, besides, anything that was made of a document."""
        self._results = results
        self._cache = cache
        self._also = also

    async def __call__(self, tenant: str, document: str) -> int:
        """How many were removed. Raises Unavailable where that is not certain."""
        # The answers first: from then on no run that is under way keeps anything.
        answers = await self._results.purge(tenant, document)
        erased = answers + await self._cache.purge(tenant, document)
        for erase in self._also:
            erased += await erase(tenant, document)
        return erased
