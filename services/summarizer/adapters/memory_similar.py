"""SimilarBook in memory, beside a MemoryStore whose answers it goes with."""

from collections.abc import Sequence

from services.summarizer.adapters.memory import MemoryStore
from services.summarizer.domain.similar import Candidate, Trace


class MemorySimilar:
    """Traces by tenant and key."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._traces: dict[tuple[str, bytes], Trace] = {}

    async def find(self, tenant: str, bands: Sequence[bytes], limit: int) -> tuple[Candidate, ...]:
        """Those with most of the bands first."""
        found: list[tuple[int, Candidate]] = []
        for (owner, key), trace in list(self._traces.items()):
            shared = len(set(bands) & set(trace.drawn.bands))
            committed = (await self._store.find(tenant, [key])).get(key)
            if owner != tenant or not shared or committed is None:
                continue
            (document,) = self._store.bought_for(tenant, key)
            generation = await self._store.generation(tenant, document)
            marks, sketch = trace.marks, trace.drawn.sketch
            found.append((shared, Candidate(committed.answer, document, generation, sketch, marks, trace.first_page)))
        return tuple(candidate for _, candidate in sorted(found, key=lambda pair: -pair[0])[:limit])

    async def keep(self, tenant: str, traces: Sequence[Trace]) -> None:
        """Keeps those whose answers are there."""
        there = await self._store.find(tenant, [trace.key for trace in traces])
        for trace in traces:
            if trace.key in there:
                self._traces.setdefault((tenant, trace.key), trace)
