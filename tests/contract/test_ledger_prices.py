"""What the price stores promise, in memory and in Postgres: versions never change, and tenants may have their own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import pytest

from services.database.pool import open_pool
from services.ledger.adapters.memory_prices import MemoryPrices
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.adapters.postgres_prices import PostgresPrices, PostgresPriceShelf
from services.ledger.domain.ports import PriceBooks
from services.ledger.domain.prices import FIRST_TENANT_VERSION, PriceDesk, PriceShelf
from services.ledger.domain.pricing import Price, PriceBook
from services.runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from tests.unit.ledger.samples import BOOK, MODEL, NOW, STORES, FixedClock

CHEAP = Price(1, 2)
LARGE = "mistral/mistral-large-latest"


LISTED = 4
"""The newest version that the migrations load."""


@dataclass
class Shop:
    books: PriceBooks
    shelf: PriceShelf
    desk: PriceDesk
    clock: FixedClock


@pytest.fixture(params=STORES)
async def shop(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[Shop]:
    clock = FixedClock()
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            memory = MemoryPrices({1: BOOK, LISTED: PriceBook(LISTED, BOOK.prices)}, clock)
            yield Shop(memory, memory, PriceDesk(memory, clock), clock)
            return
        pool = await open_pool(database("ledger"), name="test", max_size=8)
        stack.push_async_callback(pool.close)
        for tenant in ("acme", "other"):
            await PostgresTenants(pool).ensure(tenant, tenant, NOW)
        # A second goes by at each look: nothing is remembered for longer than until the next.
        seconds = iter(range(0, 10**6, 10))
        books = PostgresPrices(pool, clock=clock, monotonic_s=lambda: float(next(seconds)))
        shelf = PostgresPriceShelf(pool)
        yield Shop(books, shelf, PriceDesk(shelf, clock), clock)


async def test_without_overrides_everybody_pays_the_list(shop: Shop) -> None:
    for tenant in ("acme", "other", "nobody"):
        assert (await shop.books.current(tenant)).version == LISTED


async def test_an_override_counts_from_its_time_for_its_tenant(shop: Shop) -> None:
    await shop.desk.override("acme", MODEL, CHEAP, NOW + timedelta(days=1))
    assert (await shop.books.current("acme")).version == LISTED
    shop.clock.now += timedelta(days=1)
    own = await shop.books.current("acme")
    assert own.version >= FIRST_TENANT_VERSION
    assert own.price(MODEL) == CHEAP
    assert own.price(LARGE) == Price(2_000_000, 6_000_000)
    assert (await shop.books.current("other")).price(MODEL) == Price(20_000, 0)
    assert (await shop.books.version("acme", own.version)).price(MODEL) == CHEAP
    with pytest.raises(LookupError):
        await shop.books.version("other", own.version)


async def test_a_version_stays_what_it_was(shop: Shop) -> None:
    await shop.desk.override("acme", MODEL, CHEAP, None)
    first = await shop.books.current("acme")
    await shop.desk.override("acme", MODEL, Price(5, 5), None)
    second = await shop.books.current("acme")
    await shop.desk.override("acme", MODEL, None, None)
    assert (await shop.books.current("acme")).version == LISTED
    await shop.desk.override("acme", "offline/*", Price(7, 7), None)
    third = await shop.books.current("acme")
    assert len({first.version, second.version, third.version, LISTED}) == 4
    for version, wanted in ((first, CHEAP), (second, Price(5, 5)), (third, Price(7, 7))):
        assert (await shop.books.version("acme", version.version)).price(MODEL) == wanted
    assert [o.number for o in await shop.desk.overrides("acme")] == [1, 2, 3, 4]
    assert list(await shop.desk.overrides("other")) == []


async def test_the_same_overrides_are_the_same_version(shop: Shop) -> None:
    await shop.desk.override("acme", MODEL, CHEAP, None)
    versions = await asyncio.gather(*(shop.books.current("acme") for _ in range(8)))
    assert len({book.version for book in versions}) == 1


async def test_a_new_list_is_used_and_the_old_one_stays(shop: Shop) -> None:
    await shop.desk.override("acme", MODEL, CHEAP, None)
    before = await shop.books.current("acme")
    await shop.desk.publish(LISTED + 1, "USD", {MODEL: Price(9, 9), "new/*": Price(3, 3)})
    assert (await shop.books.current("other")).price("new/x") == Price(3, 3)
    own = await shop.books.current("acme")
    assert (own.price(MODEL), own.price("new/x")) == (CHEAP, Price(3, 3))
    with pytest.raises(FailedPrecondition, match="MODEL_UNPRICED"):
        own.price(LARGE)
    old = await shop.books.version("acme", before.version)
    assert old.price(LARGE) == Price(2_000_000, 6_000_000)
    for version in (1, LISTED + 1, LISTED + 3):
        with pytest.raises(AlreadyExists, match="PRICE_BOOK_VERSION_TAKEN"):
            await shop.desk.publish(version, "USD", {MODEL: CHEAP})


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("", CHEAP),
        ("a b", CHEAP),
        ("a*b", CHEAP),
        ("x" * 201, CHEAP),
        ("a\0", CHEAP),
        (MODEL, Price(-1, 0)),
        (MODEL, Price(0, 10**9 + 1)),
    ],
    ids=["empty", "space", "star", "long", "nul", "negative", "large"],
)
async def test_what_is_no_price_is_refused(shop: Shop, model: str, price: Price) -> None:
    with pytest.raises(InvalidArgument):
        await shop.desk.override("acme", model, price, None)
    with pytest.raises(InvalidArgument):
        await shop.desk.publish(2, "USD", {model: price})


async def test_the_past_is_not_priced_anew(shop: Shop) -> None:
    with pytest.raises(InvalidArgument, match="start"):
        await shop.desk.override("acme", MODEL, CHEAP, NOW - timedelta(microseconds=1))


@pytest.mark.parametrize("table", ["price_overrides", "tenant_price_books", "budget_alerts"])
@pytest.mark.parametrize("change", ["UPDATE ledger.{0} SET tenant = tenant", "DELETE FROM ledger.{0}"])
def test_what_is_appended_is_never_changed(database: Callable[[str], str], table: str, change: str) -> None:
    with psycopg.connect(database("ledger")) as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute(change.format(table).encode())


async def test_a_model_is_priced_by_page_or_by_token(shop: Shop) -> None:
    by_page = Price(0, 0, page_micros=4_000)
    await shop.desk.publish(LISTED + 1, "USD", {"m/ocr": by_page, "m/chat": CHEAP})
    book = await shop.books.current("acme")
    assert (book.price("m/ocr"), book.price("m/chat")) == (by_page, CHEAP)
    await shop.desk.override("acme", "m/*", Price(7, 9), None)
    await shop.desk.override("other", "m/ocr", Price(0, 0, page_micros=1), None)
    assert (await shop.books.current("acme")).price("m/ocr") == by_page, "a price for tokens is none for pages"
    assert (await shop.books.current("other")).price("m/ocr") == Price(0, 0, page_micros=1)
    for wrong in (Price(0, 0, page_micros=10**6 + 1), Price(0, 0, page_micros=-1), Price(1, 0, page_micros=1)):
        with pytest.raises(InvalidArgument):
            await shop.desk.override("acme", "m/ocr", wrong, None)
