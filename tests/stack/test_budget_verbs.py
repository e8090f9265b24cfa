"""`pagemesh budgets`, `prices` and `webhooks` against the whole stack, through its real edge."""

import uuid

import pytest

from pagemesh_cli.verbs.money import amount
from tests.conftest import RunningStack
from tests.stack.running import Command


@pytest.fixture(scope="module")
def pagemesh(stack: RunningStack) -> Command:
    return Command.on(stack.data.root)


def test_a_budget_is_made_changed_listed_and_ended(pagemesh: Command) -> None:
    budget_id = f"b-{uuid.uuid4().hex[:8]}"
    making = ("budgets", "create", "--id", budget_id, "--subject", "jobs/j", "--period", "day", "--hard", "12.5")
    made = pagemesh(*making, "--json").json
    assert (made["name"], made["period"]) == (f"budgets/{budget_id}", "BUDGET_PERIOD_DAY")
    assert made["hardLimit"] == {"currency": "USD", "micros": "12500000"}
    assert pagemesh(*making, "--json").json == made
    changed = pagemesh("budgets", "update", budget_id, "--soft", "0.000001", "--no-hard", "--json").json
    assert ("hardLimit" in changed, changed["softLimit"]["micros"]) == (False, "1")
    listed = pagemesh("budgets", "list", "--subject", "jobs/j")
    assert f"budgets/{budget_id}" in listed.out
    assert pagemesh("budgets", "delete", budget_id).code == 0
    assert budget_id not in pagemesh("budgets", "list").out
    refused = pagemesh("budgets", "update", budget_id, "--soft", "1", "--json")
    assert (refused.code, refused.error["reason"]) != (0, None)
    assert refused.error["reason"] == "BUDGET_NOT_FOUND"


def test_prices_are_listed(pagemesh: Command) -> None:
    told = pagemesh("prices")
    assert "offline/lexrank" in told.out
    assert "0.020000 USD" in told.out
    (by_page,) = (line for line in told.out.splitlines() if "mistral-ocr-latest" in line)
    assert by_page.split()[1:] == ["0.004000", "USD"]
    assert "version 4" in told.err
    assert pagemesh("prices", "--version", "999", "--json").error["reason"] == "PRICE_BOOK_NOT_FOUND"


def test_a_webhook_is_made_listed_and_ended(pagemesh: Command) -> None:
    made = pagemesh("webhooks", "create", "https://example.com/hook", "--json").json
    assert made["secret"].startswith("whsec_")
    name = made["webhook"]["name"]
    assert f"{name} https://example.com/hook budget.threshold_reached" in pagemesh("webhooks", "list").out
    assert pagemesh("webhooks", "delete", name).code == 0
    assert name not in pagemesh("webhooks", "list").out
    assert pagemesh("webhooks", "create", "http://10.0.0.1/", "--json").error["reason"] == "INVALID_FIELD"


def test_dead_letters_are_listed_and_sent_again(pagemesh: Command) -> None:
    events = ("--event", "job.failed", "--event", "batch.ended")
    made = pagemesh("webhooks", "create", "https://example.com/hook", *events, "--json").json
    assert made["webhook"]["eventTypes"] == ["job.failed", "batch.ended"]
    assert pagemesh("webhooks", "delete", made["webhook"]["name"]).code == 0
    listed = pagemesh("webhooks", "deliveries", "--dead")
    assert (listed.code, listed.out) == (0, "")
    assert pagemesh("webhooks", "retry", "--dead").code == 0
    unknown = f"webhookDeliveries/{uuid.uuid4()}"
    assert pagemesh("webhooks", "retry", unknown, "--json").error["reason"] == "DELIVERY_NOT_FOUND"
    assert pagemesh("webhooks", "retry", "--json").error["reason"] == "BAD_ARGUMENTS"
    assert pagemesh("webhooks", "create", "https://example.com/", "--event", "x", "--json").code != 0


@pytest.mark.parametrize("text", ["x", "-1", "1.0000001", "NaN", "inf", "1e99", ""])
def test_what_is_no_amount_is_told(pagemesh: Command, text: str) -> None:
    assert pagemesh("budgets", "create", f"--hard={text}").code == 2


def test_amounts_are_exact() -> None:
    assert [amount(text).micros for text in ("0.1", "0.000001", "1e3", "1000000000")] == [100_000, 1, 10**9, 10**15]
