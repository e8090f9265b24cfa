"""What models cost: told to tenants, and set by the operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.ledger.domain import paging
from services.ledger.domain.checks import check_text, check_time, invalid_field
from services.ledger.domain.ports import Clock, PriceBooks
from services.ledger.domain.pricing import Price, PriceBook
from services.ledger.domain.values import CURRENCY, Caller
from services.runtime.errors import AlreadyExists, NotFound

DEFAULT_PAGE = 50
MOST_OVERRIDES = 1000
"""Most overrides that a tenant ever gets: all of them are read to find those in force."""
FIRST_TENANT_VERSION = 1_000_001
"""Versions from here on are a tenant's own: overrides over a version of the list."""
_MOST_MICROS = 10**9
_MOST_PAGE_MICROS = 10**6
"""A dollar a page."""
_LONGEST_MODEL = 200


@dataclass(frozen=True, slots=True)
class PriceOverride:
    """What a model (or a pattern of models) costs one tenant from `start` on; without a price, what the list says."""

    tenant: str
    number: int
    model: str
    start: datetime
    price: Price | None


def in_force(overrides: Sequence[PriceOverride], now: datetime) -> dict[str, PriceOverride]:
    """The overrides that count at `now`, by model: of each the one that began last, of two at once the later number."""
    begun = sorted((o for o in overrides if o.start <= now), key=lambda o: (o.start, o.number))
    latest = {override.model: override for override in begun}
    return {model: override for model, override in latest.items() if override.price is not None}


class PriceShelf(Protocol):
    """Where prices are kept: appended, never changed. Each method is one transaction and may raise Unavailable."""

    async def publish(self, version: int, currency: str, prices: Mapping[str, Price]) -> bool:
        """Adds a version of the list; False where it is not the one that follows the newest."""
        ...

    async def override(
        self, tenant: str, model: str, start: datetime, price: Price | None, now: datetime
    ) -> PriceOverride | None:
        """Adds an override; None where the tenant has MOST_OVERRIDES. FailedPrecondition TENANT_UNKNOWN."""
        ...

    async def overrides(self, tenant: str) -> Sequence[PriceOverride]:
        """All overrides of the tenant, by number."""
        ...


class PriceLists:
    """Tells prices."""

    def __init__(self, books: PriceBooks) -> None:
        self._books = books

    async def list(
        self, caller: Caller, version: int, page_size: int, page_token: str
    ) -> tuple[PriceBook, Sequence[str], str]:
        """The book, the models of one part of it, and the token for the next. `version` 0 means the current one.

        Raises NotFound PRICE_BOOK_NOT_FOUND, InvalidArgument INVALID_PAGE_TOKEN.
        """
        size = page_size or DEFAULT_PAGE
        listed = f"prices {version} of {caller.tenant}"
        # The token holds the version: a new one that comes in between does not mix with it.
        place = paging.decode_text(page_token, listed) if page_token else ""
        begun, _, after = place.partition(" ")
        book = await self._book(caller.tenant, int(begun) if begun else version)
        models = sorted(m for m in {*book.prices, *book.overrides} if m > after)
        if len(models) <= size:
            return book, models, ""
        return book, models[:size], paging.encode_text(f"{book.version} {models[size - 1]}", listed)

    async def _book(self, tenant: str, version: int) -> PriceBook:
        if not version:
            return await self._books.current(tenant)
        try:
            return await self._books.version(tenant, version)
        except LookupError as exc:
            raise NotFound("PRICE_BOOK_NOT_FOUND", "There is no such version of the price book.") from exc


class PriceDesk:
    """What the operator does about prices."""

    def __init__(self, shelf: PriceShelf, clock: Clock) -> None:
        self._shelf = shelf
        self._clock = clock

    async def publish(self, version: int, currency: str, prices: Mapping[str, Price]) -> None:
        """Adds the next version of the list, which replicas use within seconds.

        Raises InvalidArgument for what cannot be a price, AlreadyExists PRICE_BOOK_VERSION_TAKEN where the version is
        not the one that follows the newest.
        """
        if currency != CURRENCY:
            raise invalid_field("currency", f"must be {CURRENCY}, the currency of these books")
        if not 1 <= version < FIRST_TENANT_VERSION:
            raise invalid_field("version", f"must be between 1 and {FIRST_TENANT_VERSION - 1}")
        if not prices:
            raise invalid_field("price", "must be there at least once: a list without prices refuses every call")
        for model, price in prices.items():
            _check_model(model)
            _check_price(price)
        if not await self._shelf.publish(version, currency, prices):
            raise AlreadyExists(
                "PRICE_BOOK_VERSION_TAKEN", "The version must be the one after the newest. See `prices list`."
            )

    async def override(self, tenant: str, model: str, price: Price | None, start: datetime | None) -> PriceOverride:
        """Sets what a model costs the tenant from `start` on, from now on where it is None; None as the price ends it.

        Raises InvalidArgument, also for a start in the past: what was charged stays as it was.
        """
        _check_model(model)
        if price is not None:
            _check_price(price)
        now = self._clock()
        if start is not None:
            check_time(start, "start")
            if start < now:
                raise invalid_field("start", "must not be in the past")
        kept = await self._shelf.override(tenant, model, start or now, price, now)
        if kept is None:
            raise invalid_field("tenant", f"has {MOST_OVERRIDES} overrides already")
        return kept

    async def overrides(self, tenant: str) -> Sequence[PriceOverride]:
        """All overrides that the tenant ever got."""
        return await self._shelf.overrides(tenant)


def _check_model(model: str) -> None:
    check_text(model, "model")
    if not 1 <= len(model) <= _LONGEST_MODEL or " " in model or "*" in model[:-1]:
        raise invalid_field("model", f"must be 1 to {_LONGEST_MODEL} characters without spaces, * only at the end")


def _check_price(price: Price) -> None:
    for name in ("input_micros_per_million", "output_micros_per_million"):
        micros = getattr(price, name)
        if isinstance(micros, bool) or not isinstance(micros, int) or not 0 <= micros <= _MOST_MICROS:
            raise invalid_field(name, f"must be a whole number between 0 and {_MOST_MICROS}")
    page = price.page_micros
    if isinstance(page, bool) or not isinstance(page, int) or not 0 <= page <= _MOST_PAGE_MICROS:
        raise invalid_field("page_micros", f"must be a whole number between 0 and {_MOST_PAGE_MICROS}")
    if page and (price.input_micros_per_million or price.output_micros_per_million):
        raise invalid_field("page_micros", "must be 0 where there is a price for tokens: a model has one unit")
