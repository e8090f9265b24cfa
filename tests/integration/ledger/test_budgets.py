"""Budgets, prices and webhooks as tenants and operators use them: real mTLS, real Postgres, a real receiver."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pagemesh.common.v1.money_pb2 import Money
from pagemesh.ledger.v1 import budget_pb2
from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from services.webhooks.signature import signature
from tests.integration.ledger.conftest import (
    Admit,
    Connect,
    LedgerProcess,
    Peer,
    environment,
    eventually,
    refused,
    run_command,
)
from tests.integration.ledger.receiver import Receiver, receiving
from tests.integration.ledger.test_money import MODEL, event, reserve

Code = grpc.StatusCode
DAY, MONTH, TOTAL = (budget_pb2.BudgetPeriod.Value(f"BUDGET_PERIOD_{name}") for name in ("DAY", "MONTH", "TOTAL"))
KEY = "apiKeys/" + "0" * 16


def usd(micros: int) -> Money:
    return Money(currency="USD", micros=micros)


def asked(budget_id: str = "", *, subject: str = "", period: int = TOTAL, **limits: Money) -> pb.CreateBudgetRequest:
    budget = budget_pb2.Budget(subject=subject, period=period, **limits)  # type: ignore[arg-type]
    return pb.CreateBudgetRequest(budget=budget, budget_id=budget_id)


@dataclass
class Desk:
    """A tenant's key at the edge, and its summarizer."""

    edge: Peer
    summarizer: Peer

    async def call(self, name: str, request: object) -> Any:
        return await self.edge.call(getattr(LedgerServiceStub(self.edge.edge), name), request)

    async def spend(self, tokens: int, *, job: str = "") -> None:
        hold = reserve(tokens=tokens)
        hold.job = job
        await self.summarizer.call(self.summarizer.ledger.Reserve, hold)
        settle = pb.SettleRequest(hold_id=hold.hold_id, event=event(tokens=tokens, job=job))
        await self.summarizer.call(self.summarizer.ledger.Settle, settle)


@pytest.fixture
async def desk(service: LedgerProcess, connect: Connect, admit: Admit) -> Desk:
    tenant = (await admit(hard_budget_micros=10**9)).name
    return Desk(connect(service, "edge", tenant), connect(service, "summarizer", tenant))


@pytest.fixture
async def stranger(service: LedgerProcess, connect: Connect, admit: Admit) -> Desk:
    tenant = (await admit()).name
    return Desk(connect(service, "edge", tenant), connect(service, "summarizer", tenant))


async def test_a_budget_from_its_making_to_its_end(desk: Desk) -> None:
    request = asked("mine", period=DAY, hard_limit=usd(2000), soft_limit=usd(1000))
    made = (await desk.call("CreateBudget", request)).budget
    assert (made.name, made.subject, made.period) == ("budgets/mine", f"tenants/{desk.edge.tenant}", DAY)
    assert not made.set_by_operator
    assert made.period_end_time.seconds - made.period_start_time.seconds == 86_400
    await desk.spend(50_000)
    now = (await desk.call("GetBudget", pb.GetBudgetRequest(name="budgets/mine"))).budget
    assert (now.settled.micros, now.held.micros) == (1000, 0)
    assert [(t.limit_type, t.percent) for t in now.reached_thresholds] == [(1, 50), (2, 50), (2, 80), (2, 100)]
    async with refused(Code.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED") as told:
        await desk.summarizer.call(desk.summarizer.ledger.Reserve, reserve(tokens=50_001))
    assert told.quota == "budgets/mine"
    again = (await desk.call("CreateBudget", request)).budget
    assert again == now
    change = pb.UpdateBudgetRequest(
        budget=budget_pb2.Budget(name="budgets/mine", hard_limit=usd(2001)), update_mask=FieldMask(paths=["hard_limit"])
    )
    assert (await desk.call("UpdateBudget", change)).budget.hard_limit.micros == 2001
    await desk.spend(50_050)
    for _ in range(2):
        await desk.call("DeleteBudget", pb.DeleteBudgetRequest(name="budgets/mine"))
    async with refused(Code.NOT_FOUND, "BUDGET_NOT_FOUND"):
        await desk.call("GetBudget", pb.GetBudgetRequest(name="budgets/mine"))
    async with refused(Code.ALREADY_EXISTS, "BUDGET_ID_REUSED"):
        await desk.call("CreateBudget", request)
    await desk.spend(50_000)


async def test_a_mask_that_names_an_absent_limit_takes_it_away(desk: Desk) -> None:
    await desk.call("CreateBudget", asked("b", hard_limit=usd(5), soft_limit=usd(3)))
    both = FieldMask(paths=["hard_limit", "soft_limit"])
    change = pb.UpdateBudgetRequest(budget=budget_pb2.Budget(name="budgets/b", soft_limit=usd(4)), update_mask=both)
    changed = (await desk.call("UpdateBudget", change)).budget
    assert (changed.HasField("hard_limit"), changed.soft_limit.micros) == (False, 4)
    async with refused(Code.FAILED_PRECONDITION, "BUDGET_WITHOUT_LIMIT"):
        change.budget.ClearField("soft_limit")
        await desk.call("UpdateBudget", change)
    async with refused(Code.INVALID_ARGUMENT, "NOTHING_TO_UPDATE"):
        await desk.call("UpdateBudget", pb.UpdateBudgetRequest(budget=budget_pb2.Budget(name="budgets/b")))


async def test_what_the_operator_set_is_read_only(desk: Desk) -> None:
    (listed,) = (await desk.call("ListBudgets", pb.ListBudgetsRequest())).budgets
    assert (listed.name, listed.set_by_operator, listed.hard_limit.micros) == ("budgets/operator", True, 10**9)
    change = pb.UpdateBudgetRequest(budget=budget_pb2.Budget(name="budgets/operator", hard_limit=usd(10**10)))
    async with refused(Code.PERMISSION_DENIED, "BUDGET_OF_OPERATOR"):
        await desk.call("UpdateBudget", change)
    async with refused(Code.PERMISSION_DENIED, "BUDGET_OF_OPERATOR"):
        await desk.call("DeleteBudget", pb.DeleteBudgetRequest(name="budgets/operator"))
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD") as told:
        await desk.call("CreateBudget", asked("operator", hard_limit=usd(10**10)))
    assert told.fields == ["budget_id"]
    await desk.call("CreateBudget", asked("more", hard_limit=usd(10**12)))
    async with refused(Code.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED") as full:
        await desk.summarizer.call(
            desk.summarizer.ledger.Reserve, reserve(model="mistral/mistral-large-latest", tokens=10**9)
        )
    assert full.quota == "budgets/operator"


async def test_another_tenants_names_are_not_found(desk: Desk, stranger: Desk) -> None:
    await desk.call("CreateBudget", asked("mine", hard_limit=usd(5)))
    hook = (await desk.call("CreateWebhook", pb.CreateWebhookRequest(url="https://example.com/hook"))).webhook
    async with refused(Code.NOT_FOUND, "BUDGET_NOT_FOUND"):
        await stranger.call("GetBudget", pb.GetBudgetRequest(name="budgets/mine"))
    change = pb.UpdateBudgetRequest(budget=budget_pb2.Budget(name="budgets/mine", hard_limit=usd(6)))
    async with refused(Code.NOT_FOUND, "BUDGET_NOT_FOUND"):
        await stranger.call("UpdateBudget", change)
    async with refused(Code.NOT_FOUND, "BUDGET_NOT_FOUND"):
        await stranger.call("DeleteBudget", pb.DeleteBudgetRequest(name="budgets/mine"))
    async with refused(Code.NOT_FOUND, "WEBHOOK_NOT_FOUND"):
        await stranger.call("DeleteWebhook", pb.DeleteWebhookRequest(name=hook.name))
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD"):
        subject = f"tenants/{desk.edge.tenant}"
        await stranger.call("CreateBudget", asked("x", subject=subject, hard_limit=usd(5)))
    assert not (await stranger.call("ListBudgets", pb.ListBudgetsRequest())).budgets
    assert not (await stranger.call("ListWebhooks", pb.ListWebhooksRequest())).webhooks
    # A budget on another tenant's key is one of the stranger's own, and counts nothing of the key's owner.
    await stranger.call("CreateBudget", asked("theirs", subject=KEY, hard_limit=usd(5)))
    await desk.spend(50)
    assert (await stranger.call("GetBudget", pb.GetBudgetRequest(name="budgets/theirs"))).budget.settled.micros == 0
    assert (await desk.call("GetBudget", pb.GetBudgetRequest(name="budgets/mine"))).budget.settled.micros == 1


async def test_pages_of_budgets_and_their_tokens(desk: Desk) -> None:
    for n in range(5):
        await desk.call("CreateBudget", asked(f"b{n}", subject=f"jobs/{n % 2}", hard_limit=usd(5)))
    seen, token = [], ""
    while True:
        part = await desk.call("ListBudgets", pb.ListBudgetsRequest(page_size=2, page_token=token))
        seen += [budget.name for budget in part.budgets]
        if not (token := part.next_page_token):
            break
        async with refused(Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
            await desk.call("ListBudgets", pb.ListBudgetsRequest(subject="jobs/1", page_token=token))
    assert seen == [f"budgets/b{n}" for n in range(5)] + ["budgets/operator"]
    odd = await desk.call("ListBudgets", pb.ListBudgetsRequest(subject="jobs/1"))
    assert [budget.name for budget in odd.budgets] == ["budgets/b1", "budgets/b3"]
    made = (await desk.call("CreateBudget", asked(hard_limit=usd(5)))).budget
    assert made.name.startswith("budgets/")


@pytest.mark.parametrize("text", ["'; DROP TABLE ledger.budgets; --", "%s", "\\'", '" OR 1=1 --', "a\0b", "x" * 600])
async def test_hostile_texts_are_refused_or_data(desk: Desk, text: str) -> None:
    requests = [
        ("CreateBudget", asked(text, hard_limit=usd(5))),
        ("CreateBudget", asked("ok", subject=text, hard_limit=usd(5))),
        ("CreateBudget", asked("ok", hard_limit=Money(currency=text, micros=5))),
        ("GetBudget", pb.GetBudgetRequest(name=f"budgets/{text}")),
        ("ListBudgets", pb.ListBudgetsRequest(subject=text)),
        ("ListBudgets", pb.ListBudgetsRequest(page_token=text)),
        ("UpdateBudget", pb.UpdateBudgetRequest(budget=budget_pb2.Budget(name=text, hard_limit=usd(5)))),
        ("DeleteBudget", pb.DeleteBudgetRequest(name=f"budgets/{text}")),
        ("ListPrices", pb.ListPricesRequest(page_token=text)),
        ("CreateWebhook", pb.CreateWebhookRequest(url=text)),
        ("CreateWebhook", pb.CreateWebhookRequest(url=f"https://{text}/")),
        ("ListWebhooks", pb.ListWebhooksRequest(page_token=text)),
        ("DeleteWebhook", pb.DeleteWebhookRequest(name=f"webhooks/{text}")),
    ]
    for name, request in requests:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await desk.call(name, request)
        assert raised.value.code() is Code.INVALID_ARGUMENT, (name, raised.value.details())


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (asked(hard_limit=usd(5), period=0), "budget.period"),
        (asked(hard_limit=Money(currency="EUR", micros=5)), "budget.hard_limit.currency"),
        (asked(hard_limit=Money(currency="USD", micros=-1)), "budget.hard_limit.micros"),
        (asked(), "budget"),
        (asked("-x", hard_limit=usd(5)), "budget_id"),
        (pb.UpdateBudgetRequest(budget=budget_pb2.Budget(hard_limit=usd(5))), "budget.name"),
        (
            pb.UpdateBudgetRequest(budget=budget_pb2.Budget(name="budgets/b"), update_mask=FieldMask(paths=["period"])),
            "update_mask",
        ),
        (pb.CreateWebhookRequest(url="ftp://example.com/"), "url"),
        (pb.CreateWebhookRequest(url="https://user:secret@example.com/"), "url"),
        (pb.ListPricesRequest(price_book_version=-1), "price_book_version"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_field_out_of_bounds_is_named(desk: Desk, request_: object, field: str) -> None:
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD") as told:
        await desk.call(type(request_).__name__.removesuffix("Request"), request_)
    assert told.fields == [field]


@pytest.mark.parametrize("scopes", ["usage.read", "budgets.read"])
async def test_each_method_asks_for_its_scope(
    service: LedgerProcess, connect: Connect, admit: Admit, scopes: str
) -> None:
    poor = connect(service, "edge", (await admit()).name, scopes=scopes)
    stub = LedgerServiceStub(poor.edge)
    admin: list[tuple[Callable[..., Any], object]] = [
        (stub.CreateBudget, asked(hard_limit=usd(1))),
        (stub.UpdateBudget, pb.UpdateBudgetRequest()),
        (stub.DeleteBudget, pb.DeleteBudgetRequest()),
        (stub.CreateWebhook, pb.CreateWebhookRequest()),
        (stub.ListWebhooks, pb.ListWebhooksRequest()),
        (stub.DeleteWebhook, pb.DeleteWebhookRequest()),
    ]
    reading: list[tuple[Callable[..., Any], object]] = (
        [(stub.ListBudgets, pb.ListBudgetsRequest())] if scopes == "usage.read" else []
    )
    for method, request in [*admin, *reading]:
        async with refused(Code.PERMISSION_DENIED, "SCOPE_MISSING"):
            await poor.call(method, request)


async def test_the_job_of_a_settlement_is_that_of_the_hold(desk: Desk) -> None:
    hold = reserve()
    hold.job = "jobs/j"
    await desk.summarizer.call(desk.summarizer.ledger.Reserve, hold)
    for job in ("", "jobs/k"):
        async with refused(Code.FAILED_PRECONDITION, "HOLD_OF_OTHER_JOB"):
            settle = pb.SettleRequest(hold_id=hold.hold_id, event=event(job=job))
            await desk.summarizer.call(desk.summarizer.ledger.Settle, settle)
    settle = pb.SettleRequest(hold_id=hold.hold_id, event=event(job="jobs/j"))
    await desk.summarizer.call(desk.summarizer.ledger.Settle, settle)


async def test_a_tenants_own_price_is_charged_and_kept(desk: Desk, ledger_dsn: str) -> None:
    tenant = desk.edge.tenant
    before = reserve(tokens=50_000)
    await desk.summarizer.call(desk.summarizer.ledger.Reserve, before)
    prices = ["prices", "override", "--tenant", tenant, "--model", "offline/*"]
    code, output = await run_command([*prices, "--micros-per-million", "40000,5"], environment(ledger_dsn))
    assert (code, json.loads(output)["number"]) == (0, 1), output

    async def doubled() -> bool:
        held = await desk.summarizer.call(desk.summarizer.ledger.Reserve, reserve(tokens=50_000))
        return bool(held.hold.amount.micros == 2000)

    await eventually(doubled)
    after = reserve(tokens=50_000)
    held = (await desk.summarizer.call(desk.summarizer.ledger.Reserve, after)).hold
    assert held.price_book_version > 1_000_000
    listed = await desk.call("ListPrices", pb.ListPricesRequest(page_size=1000))
    (own,) = (price for price in listed.prices if price.tenant_override)
    assert (own.model, own.input_per_million.micros, own.output_per_million.micros) == ("offline/*", 40000, 5)
    assert listed.price_book_version == held.price_book_version
    first = await desk.call("ListPrices", pb.ListPricesRequest(price_book_version=1, page_size=7))
    assert (len(first.prices), any(price.tenant_override for price in first.prices)) == (7, False)
    await run_command([*prices, "--list-price"], environment(ledger_dsn))

    async def as_listed() -> bool:
        return bool((await desk.call("ListPrices", pb.ListPricesRequest())).price_book_version == 2)

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
        ('version = 4\ncurrency = "USD"\n' + line.format(1), "PRICE_BOOK_VERSION_TAKEN"),
        ('version = 3\ncurrency = "EUR"\n' + line.format(1), "currency"),
        ('version = 3\ncurrency = "USD"\n' + line.format("1.5"), "input_micros_per_million"),
        ('version = 3\ncurrency = "USD"\n' + line.format(1) * 2, "file"),
        ("version = ", "file"),
    ):
        (file := tmp_path / "prices.toml").write_text(text)
        code, output = await run_command(["prices", "load", str(file)], environment(ledger_dsn))
        assert code == 1
        assert why in output


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as told:
        yield told


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
    secret = base64.b64decode(made.secret.removeprefix("whsec_"))
    for headers, body in receiver.got:
        timestamp = int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == signature(secret, headers["webhook-id"], timestamp, body)
    message = json.loads(receiver.got[0][1])
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


async def test_sixty_four_reservers_and_room_for_ten_in_the_narrowest(
    service: LedgerProcess, connect: Connect, desk: Desk
) -> None:
    await desk.call("CreateBudget", asked("job", subject="jobs/j", period=DAY, hard_limit=usd(10_999)))
    peers = [connect(service, "summarizer", desk.edge.tenant) for _ in range(4)]

    def hold() -> pb.ReserveRequest:
        request = reserve(str(uuid.uuid4()))
        request.job = "jobs/j"
        return request

    calls = [peer.call(peer.ledger.Reserve, hold(), 60) for peer in peers for _ in range(16)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    failed = [r for r in results if isinstance(r, BaseException)]
    assert {r.code() for r in failed if isinstance(r, grpc.aio.AioRpcError)} == {Code.RESOURCE_EXHAUSTED}
    assert len(failed) == 54
    budget = (await desk.call("GetBudget", pb.GetBudgetRequest(name="budgets/job"))).budget
    assert budget.held.micros == 10_000
