"""Prices and webhooks as tenants and operators use them: real mTLS, real Postgres, a real receiver."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psycopg
import pytest

from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from tests.integration.ledger.conftest import (
    Admit,
    Connect,
    LedgerProcess,
    environment,
    eventually,
    refused,
    run_command,
)
from tests.integration.ledger.desks import Desk, asked, open_desk, usd
from tests.integration.ledger.receivers import Receiver, open_receiver
from tests.integration.ledger.test_money import MODEL, event, reserve

Code = grpc.StatusCode


@pytest.fixture
async def desk(service: LedgerProcess, connect: Connect, admit: Admit) -> Desk:
    return await open_desk(service, connect, admit, budget=10**9)


@pytest.fixture
async def stranger(service: LedgerProcess, connect: Connect, admit: Admit) -> Desk:
    return await open_desk(service, connect, admit)


async def test_a_tenants_own_price_is_charged_and_kept(desk: Desk, ledger_dsn: str) -> None:
    tenant = desk.edge.tenant
    before = reserve(tokens=50_000)
    await desk.summarizer.call(desk.summarizer.ledger.Reserve, before)
    prices = ["prices", "override", "--tenant", tenant, "--model", "offline/*"]
    code, output = await run_command([*prices, "--micros-per-million", "40000,5"], environment(ledger_dsn))
    assert (code, json.loads(output)["number"]) == (0, 1), output
    with psycopg.connect(ledger_dsn) as database:
        database.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
        told = "SELECT actor, action FROM ledger.audit_events WHERE resource = 'models/offline/*'"
        assert database.execute(told).fetchall() == [("system/operator", "pagemesh.ledger.v1.Operator/override")]

    async def doubled() -> bool:
        held = await desk.summarizer.call(desk.summarizer.ledger.Reserve, reserve(tokens=50_000))
        return bool(held.hold.amount.micros == 2000)

    await eventually(doubled)
    after = reserve(tokens=50_000)
    held = (await desk.summarizer.call(desk.summarizer.ledger.Reserve, after)).hold
    assert held.price_book_version > 1_000_000
    listed = await desk.call("ListPrices", pb.ListPricesRequest(page_size=1000))
    own = [price for price in listed.prices if price.tenant_override]
    assert [(p.model, p.input_per_million.micros, p.output_per_million.micros) for p in own] == [
        ("offline/*", 40000, 5)
    ]
    assert listed.price_book_version == held.price_book_version
    first = await desk.call("ListPrices", pb.ListPricesRequest(price_book_version=1, page_size=7))
    assert (len(first.prices), any(price.tenant_override for price in first.prices)) == (7, False)
    await run_command([*prices, "--list-price"], environment(ledger_dsn))

    async def as_listed() -> bool:
        return bool((await desk.call("ListPrices", pb.ListPricesRequest())).price_book_version == 4)

    await eventually(as_listed)
    # Each is settled at the price it was held at, whatever came since.
    costs = []
    for hold in (before, after):
        settle = pb.SettleRequest(hold_id=hold.hold_id, event=event(tokens=50_000))
        costs.append((await desk.summarizer.call(desk.summarizer.ledger.Settle, settle)).record.cost.micros)
    assert costs == [1000, 2000]
    async with refused(Code.NOT_FOUND, "PRICE_BOOK_NOT_FOUND"):
        await desk.call("ListPrices", pb.ListPricesRequest(price_book_version=999))


async def test_anothers_price_book_is_not_found(desk: Desk, stranger: Desk, ledger_dsn: str) -> None:
    prices = ["prices", "override", "--tenant", desk.edge.tenant, "--model", MODEL, "--micros-per-million", "1,1"]
    assert (await run_command(prices, environment(ledger_dsn)))[0] == 0
    versions = [0]

    async def own() -> bool:
        versions[0] = (await desk.call("ListPrices", pb.ListPricesRequest())).price_book_version
        return versions[0] > 1_000_000

    await eventually(own)
    request = pb.ListPricesRequest(price_book_version=versions[0])
    assert (await desk.call("ListPrices", request)).price_book_version == versions[0]
    async with refused(Code.NOT_FOUND, "PRICE_BOOK_NOT_FOUND"):
        await stranger.call("ListPrices", request)


async def test_a_price_list_is_loaded_once_and_checked(ledger_dsn: str, tmp_path: Path) -> None:
    line = '[[price]]\nmodel = "new/model"\ninput_micros_per_million = {}\noutput_micros_per_million = 1\n'
    for text, why in (
        ('version = 1\ncurrency = "USD"\n' + line.format(1), "PRICE_BOOK_VERSION_TAKEN"),
        ('version = 6\ncurrency = "USD"\n' + line.format(1), "PRICE_BOOK_VERSION_TAKEN"),
        ('version = 5\ncurrency = "EUR"\n' + line.format(1), "currency"),
        ('version = 5\ncurrency = "USD"\n' + line.format("1.5"), "input_micros_per_million"),
        ('version = 5\ncurrency = "USD"\n' + line.format(1) * 2, "file"),
        ("version = ", "file"),
    ):
        file = tmp_path / "prices.toml"
        file.write_text(text)
        code, output = await run_command(["prices", "load", str(file)], environment(ledger_dsn))
        assert code == 1
        assert why in output


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


async def test_a_threshold_is_told_once_and_signed(desk: Desk, receiver: Receiver) -> None:
    receiver.statuses = [500, 302]
    url = f"http://127.0.0.1:{receiver.port}/hook?x=1"
    made = await desk.call("CreateWebhook", pb.CreateWebhookRequest(url=url))
    assert [hook.url for hook in (await desk.call("ListWebhooks", pb.ListWebhooksRequest())).webhooks] == [url]
    await desk.call("CreateBudget", asked("b", hard_limit=usd(2000)))
    await desk.spend(50_000)

    async def told() -> bool:
        return len(receiver.got) >= 3

    await eventually(told, within_s=60)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    message = receiver.told(made.secret)[0]
    assert message["type"] == "budget.threshold_reached"
    data = message["data"]
    assert (data["budget"], data["percent"], data["limit_type"]) == ("budgets/b", 50, "HARD")
    assert (data["limit_micros"], data["settled_micros"] + data["held_micros"]) == (2000, 1000)
    assert data["tenant"] == f"tenants/{desk.edge.tenant}"
    # A second call past the same threshold tells nobody; the next threshold is one more message.
    await desk.spend(5_000)
    await desk.spend(25_000)

    async def next_told() -> bool:
        return len(receiver.got) >= 4

    await eventually(next_told, within_s=60)
    assert [json.loads(body)["data"]["percent"] for _, body in receiver.got] == [50, 50, 50, 80]
    for _ in range(2):
        await desk.call("DeleteWebhook", pb.DeleteWebhookRequest(name=made.webhook.name))
    assert not (await desk.call("ListWebhooks", pb.ListWebhooksRequest())).webhooks


async def test_too_many_webhooks_are_refused(desk: Desk) -> None:
    for n in range(20):
        await desk.call("CreateWebhook", pb.CreateWebhookRequest(url=f"https://example.com/{n}"))
    async with refused(Code.RESOURCE_EXHAUSTED, "TOO_MANY_WEBHOOKS"):
        await desk.call("CreateWebhook", pb.CreateWebhookRequest(url="https://example.com/"))
