"""Prices: in memory, and the real ledger's price book over mTLS, patterns and the tenant's own included."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable

import pytest

from pagemesh.ledger.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from pagemesh_cli.stack.certificates import CertificateAuthority
from services.database.pool import open_pool
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.adapters.postgres_prices import PostgresPriceShelf
from services.ledger.api import contract
from services.ledger.domain.pricing import Price
from services.runtime.clients import MeshClient
from services.runtime.errors import FailedPrecondition
from services.runtime.health import Health
from services.runtime.server import MeshServer
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.ledger_prices import LedgerPrices
from services.summarizer.adapters.memory_prices import MemoryPrices
from services.summarizer.domain.prices import Prices
from services.summarizer.domain.values import Caller, Money, TokenCount
from tests.contract.test_summarizer_books import ALICE, MODEL, STRANGER, settings
from tests.unit.ledger.samples import a_servicer

OWN = "mistral/mistral-large-latest"
OCR = "mistral/mistral-ocr-latest"


@pytest.fixture
async def ledger_prices(database: Callable[[str], str], mesh_pki: CertificateAuthority) -> AsyncIterator[Prices]:
    """The ledger's book; the stranger has a price of its own for a pattern."""
    pool = await open_pool(database("ledger"), name="ledger", max_size=4)
    now = dt.datetime.now(dt.UTC)
    for caller in (ALICE, STRANGER):
        await PostgresTenants(pool).ensure(caller.tenant, caller.tenant, now)
    shelf = PostgresPriceShelf(pool)
    await shelf.override(STRANGER.tenant, "mistral/*", now - dt.timedelta(hours=1), Price(7, 9), now)
    server = MeshServer(name="ledger", settings=settings(mesh_pki.tls_dir("ledger")), health=Health())
    server.add(add_LedgerServiceServicer_to_server, a_servicer(pool), contract.LEDGER)
    started, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(server.run(started=started, stop=stop))
    async with asyncio.timeout(10):
        await started.wait()
    target = f"127.0.0.1:{server.grpc_port}"
    client = MeshClient(peer="ledger", target=target, settings=settings(mesh_pki.tls_dir("summarizer")))
    yield LedgerPrices(client)
    await client.close()
    stop.set()
    await task
    await pool.close()


@pytest.fixture(params=["memory", "ledger"])
def prices(request: pytest.FixtureRequest) -> Prices:
    if request.param == "memory":
        return MemoryPrices({MODEL: (150_000, 600_000)}, by_page={OCR: 4_000})
    found: Prices = request.getfixturevalue("ledger_prices")
    return found


async def test_the_price_of_a_model(prices: Prices) -> None:
    with act_as(ALICE):
        price = await prices.of(MODEL)
    assert (price.input_micros_per_million, price.output_micros_per_million) == (150_000, 600_000)
    assert price.version >= 1
    # Both parts are added first, and the sum is rounded up once.
    assert price.of(TokenCount(1_000, 100)) == Money("USD", 210)
    assert price.of(TokenCount(1, 0)) == Money("USD", 1)
    assert price.of(TokenCount(0, 0)) == Money("USD", 0)


async def test_a_model_without_a_price_is_refused(prices: Prices) -> None:
    with act_as(ALICE), pytest.raises(FailedPrecondition) as caught:
        await prices.of("nobody/nothing")
    assert caught.value.reason == "MODEL_UNPRICED"


async def test_a_tenants_own_price_counts_for_it_alone(ledger_prices: Prices) -> None:
    async def of(caller: Caller) -> tuple[int, int]:
        with act_as(caller):
            price = await ledger_prices.of(OWN)
        return price.input_micros_per_million, price.output_micros_per_million

    assert await of(STRANGER) == (7, 9)
    assert await of(ALICE) != (7, 9)


async def test_patterns_have_the_price_of_their_models(ledger_prices: Prices) -> None:
    with act_as(ALICE):
        assert (await ledger_prices.of("offline/lexrank")).input_micros_per_million >= 0


async def test_the_price_of_a_page(prices: Prices) -> None:
    with act_as(ALICE):
        price = await prices.of(OCR)
    assert price.of(TokenCount(0, 0, pages=3)) == Money("USD", 12_000)


async def test_a_pattern_with_a_price_for_tokens_is_none_for_pages(ledger_prices: Prices) -> None:
    with act_as(STRANGER):
        price = await ledger_prices.of(OCR)
    assert price.of(TokenCount(0, 0, pages=1)) == Money("USD", 4_000)
