"""Price books out of Postgres. A version never changes, so it is read once; which one is newest is asked again."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.errors import ForeignKeyViolation
from psycopg.types.numeric import Int8

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_rows import BIND_TENANT, OWN_TENANT, TENANT_LOCK
from services.ledger.domain import refusals
from services.ledger.domain.ports import Clock
from services.ledger.domain.prices import FIRST_TENANT_VERSION, MOST_OVERRIDES, PriceOverride, in_force
from services.ledger.domain.pricing import Price, PriceBook
from services.runtime.errors import Unavailable

REFRESH_S = 5.0
"""How long a new version, or an override that begins, may go unnoticed."""
_REMEMBERED = 10_000

_NEWEST = "SELECT max(version) FROM ledger.price_books"
_PRICES = """
    SELECT model, input_micros_per_million, output_micros_per_million, page_micros
    FROM ledger.prices WHERE version = %s
"""
_OVERRIDES = """
    SELECT tenant, number, model, start_time, input_micros_per_million, output_micros_per_million, page_micros
    FROM ledger.price_overrides WHERE tenant = %s ORDER BY number
"""
_OWN_VERSION = """
    SELECT version FROM ledger.tenant_price_books WHERE tenant = %s AND list_version = %s AND overrides = %s::integer[]
"""
_KEEP_OWN = """
    INSERT INTO ledger.tenant_price_books (tenant, list_version, overrides) VALUES (%s, %s, %s::integer[])
    ON CONFLICT DO NOTHING
"""
_OWN_BOOK = "SELECT list_version, overrides FROM ledger.tenant_price_books WHERE tenant = %s AND version = %s"
_PUBLISH = """
    INSERT INTO ledger.price_books (version, currency)
    SELECT %(version)s, %(currency)s
    WHERE %(version)s = (SELECT coalesce(max(version), 0) + 1 FROM ledger.price_books)
    ON CONFLICT DO NOTHING RETURNING version
"""
_PUBLISH_PRICES = """
    INSERT INTO ledger.prices (version, model, input_micros_per_million, output_micros_per_million, page_micros)
    SELECT %s, * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
"""
_OVERRIDE = """
    INSERT INTO ledger.price_overrides (tenant, number, model, start_time, input_micros_per_million,
                                        output_micros_per_million, page_micros, create_time)
    SELECT %(tenant)s, coalesce(max(number), 0) + 1, %(model)s, %(start)s, %(input)s, %(output)s, %(page)s, %(now)s
    FROM ledger.price_overrides WHERE tenant = %(tenant)s HAVING count(*) < %(most)s RETURNING number
"""


class PostgresPrices:
    """PriceBooks."""

    def __init__(self, pool: Pool, *, clock: Clock, monotonic_s: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._books: dict[int, PriceBook] = {}
        self._newest: tuple[int, float] | None = None
        self._own: OrderedDict[tuple[str, int], PriceBook] = OrderedDict()
        self._current: OrderedDict[str, tuple[PriceBook, float]] = OrderedDict()

    async def current(self, tenant: str) -> PriceBook:
        now_s = self._monotonic_s()
        book, read_s = self._current.get(tenant, (None, 0.0))
        if book is None:
            book = await self._read_current(tenant, now_s)
            _remember(self._current, tenant, (book, now_s))
        elif now_s - read_s >= REFRESH_S:
            # One call looks; those that come meanwhile go on with what was known, instead of looking as well.
            self._current[tenant] = book, now_s
            try:
                book = await self._read_current(tenant, now_s)
            except BaseException:
                self._current[tenant] = book, read_s
                raise
            _remember(self._current, tenant, (book, now_s))
        return book

    async def version(self, tenant: str, version: int) -> PriceBook:
        if version < FIRST_TENANT_VERSION:
            return await self._list(version)
        known = self._own.get((tenant, version))
        if known is None:
            known = await self._read_own(tenant, version)
            _remember(self._own, (tenant, version), known)
        return known

    async def _read_current(self, tenant: str, now_s: float) -> PriceBook:
        if self._newest is None or now_s - self._newest[1] >= REFRESH_S:
            self._newest = (await self._read_newest(), now_s)
        listed = await self._list(self._newest[0])
        given = await read_overrides(self._pool, tenant)
        force = in_force(given, self._clock())
        if not force:
            return listed
        version = await self._own_version(tenant, listed.version, sorted(o.number for o in force.values()))
        return _with_overrides(version, listed, list(force.values()))

    async def _list(self, version: int) -> PriceBook:
        if version not in self._books:
            self._books[version] = await self._read(version)
        return self._books[version]

    async def _read_newest(self) -> int:
        with translate("newest_price_book"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_NEWEST)
                row = await cursor.fetchone()
        if row is None or row[0] is None:
            raise Unavailable("PRICE_BOOK_MISSING", "No price book is loaded yet. Run the ledger's migrations.")
        return int(row[0])

    async def _read(self, version: int) -> PriceBook:
        with translate("price_book"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_PRICES, (version,))
                rows = await cursor.fetchall()
        if not rows:
            raise LookupError(f"no price book of version {version}")
        return PriceBook(version, {model: Price(sent, received, page) for model, sent, received, page in rows})

    async def _own_version(self, tenant: str, list_version: int, numbers: list[int]) -> int:
        """The version of these overrides over that list, which is made where nobody needed it yet."""
        values = (tenant, list_version, numbers)
        with translate("tenant_price_book"):
            async with self._pool.connection() as connection:
                await connection.execute(BIND_TENANT, (tenant,))
                row = await (await connection.execute(_OWN_VERSION, values)).fetchone()
                if row is None:
                    await connection.execute(_KEEP_OWN, values)
                    row = await (await connection.execute(_OWN_VERSION, values)).fetchone()
        assert row is not None
        return int(row[0])

    async def _read_own(self, tenant: str, version: int) -> PriceBook:
        with translate("tenant_price_book"):
            async with self._pool.connection() as connection:
                await connection.execute(BIND_TENANT, (tenant,))
                row = await (await connection.execute(_OWN_BOOK, (tenant, version))).fetchone()
        if row is None:
            raise LookupError(f"no price book of version {version}")
        list_version, numbers = row
        given = await read_overrides(self._pool, tenant)
        return _with_overrides(version, await self._list(list_version), [o for o in given if o.number in numbers])


class PostgresPriceShelf:
    """PriceShelf."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def publish(self, version: int, currency: str, prices: Mapping[str, Price]) -> bool:
        models = list(prices)
        sent = [Int8(prices[model].input_micros_per_million) for model in models]
        received = [Int8(prices[model].output_micros_per_million) for model in models]
        pages = [Int8(prices[model].page_micros) for model in models]
        with translate("publish_prices"):
            async with self._pool.connection() as connection, connection.transaction():
                cursor = await connection.execute(_PUBLISH, {"version": version, "currency": currency})
                if await cursor.fetchone() is None:
                    return False
                await connection.execute(_PUBLISH_PRICES, (version, models, sent, received, pages))
        return True

    async def override(
        self, tenant: str, model: str, start: datetime, price: Price | None, now: datetime
    ) -> PriceOverride | None:
        values: dict[str, Any] = {
            "tenant": tenant,
            "model": model,
            "start": start,
            "input": None if price is None else price.input_micros_per_million,
            "output": None if price is None else price.output_micros_per_million,
            "page": 0 if price is None else price.page_micros,
            "now": now,
            "most": MOST_OVERRIDES,
        }
        with translate("override_price"):
            try:
                async with self._pool.connection() as connection, connection.transaction():
                    await connection.execute(OWN_TENANT, (TENANT_LOCK, tenant))
                    row = await (await connection.execute(_OVERRIDE, values)).fetchone()
            except ForeignKeyViolation as exc:
                raise refusals.tenant_unknown() from exc
        return None if row is None else PriceOverride(tenant, row[0], model, start, price)

    async def overrides(self, tenant: str) -> Sequence[PriceOverride]:
        return await read_overrides(self._pool, tenant)


async def read_overrides(pool: Pool, tenant: str) -> list[PriceOverride]:
    """All overrides of the tenant, by number."""
    with translate("price_overrides"):
        async with pool.connection() as connection, connection.pipeline():
            await connection.execute(BIND_TENANT, (tenant,))
            rows = await (await connection.execute(_OVERRIDES, (tenant,))).fetchall()
    return [
        PriceOverride(owner, number, model, start, None if sent is None else Price(sent, received, page))
        for owner, number, model, start, sent, received, page in rows
    ]


def _with_overrides(version: int, listed: PriceBook, overrides: Sequence[PriceOverride]) -> PriceBook:
    return PriceBook(version, listed.prices, {o.model: o.price for o in overrides if o.price is not None})


def _remember(cache: OrderedDict[Any, Any], key: object, value: object) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > _REMEMBERED:
        cache.popitem(last=False)
