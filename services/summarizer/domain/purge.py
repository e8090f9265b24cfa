"""Erasing what was made of a document, when the document is erased."""

from services.summarizer.domain.ports import Results, SummaryCache


class PurgeDocument:
    """Erases answers and summaries. What was paid for them stays in the ledger."""

    def __init__(self, *, results: Results, cache: SummaryCache) -> None:
        self._results = results
        self._cache = cache

    async def __call__(self, tenant: str, document: str) -> int:
        """How many were removed. Raises Unavailable where that is not certain."""
        # The answers first: from then on no run that is under way keeps anything.
        answers = await self._results.purge(tenant, document)
        return answers + await self._cache.purge(tenant, document)
