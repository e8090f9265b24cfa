"""Policies of models in memory, for tests."""

from dataclasses import replace
from datetime import UTC, datetime

from services.summarizer.domain.model_policy import EMPTY, ModelPolicy


class MemoryPolicies:
    """PolicyStore in one process."""

    def __init__(self) -> None:
        self._policies: dict[str, ModelPolicy] = {}
        self.reads = 0

    async def find(self, tenant: str) -> ModelPolicy:
        """The tenant's."""
        self.reads += 1
        return self._policies.get(tenant, EMPTY)

    async def replace(self, tenant: str, policy: ModelPolicy, *, revision: int) -> ModelPolicy | None:
        """Keeps it where nobody was faster."""
        if self._policies.get(tenant, EMPTY).revision != revision:
            return None
        kept = replace(policy, revision=revision + 1, update_time=datetime.now(UTC))
        self._policies[tenant] = kept
        return kept
