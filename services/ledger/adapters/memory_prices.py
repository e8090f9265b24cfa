"""Prices in memory."""

from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime

from services.ledger.domain.ports import Clock
from services.ledger.domain.prices import FIRST_TENANT_VERSION, MOST_OVERRIDES, PriceOverride, in_force
from services.ledger.domain.pricing import Price, PriceBook


class MemoryPrices:
    """PriceBooks and PriceShelf; the newest of `books` is the list."""

    def __init__(self, books: MutableMapping[int, PriceBook], clock: Clock | None = None) -> None:
        self._books = books
        self._clock = clock
        self._overrides: dict[str, list[PriceOverride]] = {}
        self._own: dict[tuple[str, int, tuple[int, ...]], PriceBook] = {}

    async def current(self, tenant: str) -> PriceBook:
        newest = self._books[max(self._books)]
        given = self._overrides.get(tenant, [])
        force = in_force(given, self._clock()) if self._clock is not None else {}
        if not force:
            return newest
        numbers = tuple(sorted(override.number for override in force.values()))
        key = (tenant, newest.version, numbers)
        if key not in self._own:
            prices = {model: override.price for model, override in force.items() if override.price is not None}
            self._own[key] = PriceBook(FIRST_TENANT_VERSION + len(self._own), newest.prices, prices)
        return self._own[key]

    async def version(self, tenant: str, version: int) -> PriceBook:
        for (owner, _, _), book in self._own.items():
            if owner == tenant and book.version == version:
                return book
        return self._books[version]

    async def publish(self, version: int, currency: str, prices: Mapping[str, Price]) -> bool:
        if version != max(self._books) + 1:
            return False
        self._books[version] = PriceBook(version, dict(prices))
        return True

    async def override(
        self, tenant: str, model: str, start: datetime, price: Price | None, now: datetime
    ) -> PriceOverride | None:
        given = self._overrides.setdefault(tenant, [])
        if len(given) >= MOST_OVERRIDES:
            return None
        given.append(PriceOverride(tenant, len(given) + 1, model, start, price))
        return given[-1]

    async def overrides(self, tenant: str) -> Sequence[PriceOverride]:
        return list(self._overrides.get(tenant, []))
