"""Budgets as tenants and operators use them, over real mTLS and real Postgres."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pagemesh.common.v1.money_pb2 import Money
from pagemesh.ledger.v1 import budget_pb2
from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from tests.integration.ledger.conftest import (
    Admit,
    Connect,
    LedgerProcess,
    refused,
)
from tests.integration.ledger.desks import DAY, KEY, Desk, asked, open_desk, usd
from tests.integration.ledger.test_money import event, reserve

Code = grpc.StatusCode


@pytest.fixture
async def desk(service: LedgerProcess, connect: Connect, admit: Admit) -> Desk:
    return await open_desk(service, connect, admit, budget=10**9)


@pytest.fixture
async def stranger(service: LedgerProcess, connect: Connect, admit: Admit) -> Desk:
    return await open_desk(service, connect, admit)


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
