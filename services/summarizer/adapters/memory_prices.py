"""Prices in memory, for tests and for trying things out."""

from collections.abc import Mapping

from services.runtime.errors import FailedPrecondition
from services.summarizer.domain.prices import ModelPrice


class MemoryPrices:
    """Prices in micro-units for a million tokens, sent and received, or for a page, by the name of the model; the same
    for all tenants."""

    def __init__(
        self, prices: Mapping[str, tuple[int, int]], *, by_page: Mapping[str, int] | None = None, version: int = 1
    ) -> None:
        self._prices = dict(prices)
        self._by_page = dict(by_page or {})
        self._version = version

    async def of(self, model: str) -> ModelPrice:
        """The price of a model that has one."""
        if model in self._by_page:
            return ModelPrice("USD", 0, 0, self._version, page_micros=self._by_page[model])
        if model not in self._prices:
            raise FailedPrecondition("MODEL_UNPRICED", f"The model {model!r} has no price.")
        return ModelPrice("USD", *self._prices[model], self._version)
