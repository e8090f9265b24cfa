"""Price books out of Postgres. A version never changes, so it is read once; which one is newest is asked again."""

from collections.abc import Callable

from services.database.pool import Pool, translate
from services.ledger.domain.pricing import Price, PriceBook
from services.runtime.errors import Unavailable

REFRESH_S = 5.0
"""How long a new version may go unnoticed."""

_NEWEST = "SELECT max(version) FROM ledger.price_books"
_PRICES = """
    SELECT model, input_micros_per_million, output_micros_per_million FROM ledger.prices WHERE version = %s
"""


class PostgresPrices:
    """PriceBooks."""

    def __init__(self, pool: Pool, *, monotonic_s: Callable[[], float]) -> None:
        self._pool = pool
        self._monotonic_s = monotonic_s
        self._books: dict[int, PriceBook] = {}
        self._newest: tuple[int, float] | None = None

    async def current(self) -> PriceBook:
        now_s = self._monotonic_s()
        if self._newest is None or now_s - self._newest[1] >= REFRESH_S:
            self._newest = (await self._read_newest(), now_s)
        return await self.version(self._newest[0])

    async def version(self, version: int) -> PriceBook:
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
        return PriceBook(version, {model: Price(sent, received) for model, sent, received in rows})
