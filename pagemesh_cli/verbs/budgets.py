"""`pagemesh budgets` and `pagemesh prices`: what may be spent, what it costs."""

from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from rich.table import Table
from rich.text import Text

from pagemesh.common.v1 import money_pb2
from pagemesh.ledger.v1 import budget_pb2, ledger_service_pb2, price_pb2
from pagemesh_cli.output import Output, message_json, printable
from pagemesh_cli.verbs.money import amount, money
from pagemesh_cli.verbs.options import Access, Json, connected, connecting

budgets = typer.Typer(no_args_is_help=True, help="Limit what is spent, and see how far it has come.")
_PAGE = 1000

Name = Annotated[str, typer.Argument(metavar="BUDGET", help="`budgets/{id}`, or the id alone.")]


class Period(StrEnum):
    """How long totals run."""

    day = "day"
    month = "month"
    total = "total"


def _limit(what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(parser=amount, metavar="USD", help=what)
    return option


@budgets.command("list")
@connecting
def list_budgets(
    *,
    subject: Annotated[
        str, typer.Option(help="Only those of `projects/…`, `apiKeys/…`, `jobs/…` or `tenants/…`.")
    ] = "",
    as_json: Json = False,
    access: Access,
) -> None:
    """Print the budgets with what counts against them in their current period."""
    output = Output(as_json=as_json)
    request = ledger_service_pb2.ListBudgetsRequest(subject=subject, page_size=_PAGE)
    with connected(output, access) as client:
        found: list[budget_pb2.Budget] = []
        while True:
            page = client.unary(client.ledger.ListBudgets, request)
            found += page.budgets
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        if as_json:
            for budget in found:
                output.result(message_json(budget))
        elif found:
            output.print(_table(found))


@budgets.command("create")
@connecting
def create(
    *,
    subject: Annotated[
        str, typer.Option(help="Whose spending: `projects/…`, `apiKeys/…`, `jobs/…`; your tenant's.")
    ] = "",
    period: Annotated[Period, typer.Option(help="How long totals run; days and months in UTC.")] = Period.month,
    hard: Annotated[money_pb2.Money | None, _limit("Refuse calls that would pass this.")] = None,
    soft: Annotated[money_pb2.Money | None, _limit("Warn on the way to this, and refuse nothing.")] = None,
    budget_id: Annotated[str, typer.Option("--id", help="Your own id: making it again makes no second one.")] = "",
    as_json: Json = False,
    access: Access,
) -> None:
    """Make a budget. It counts what was spent before in its current period."""
    output = Output(as_json=as_json)
    budget = budget_pb2.Budget(
        subject=subject,
        period=budget_pb2.BudgetPeriod.Value(f"BUDGET_PERIOD_{period.value.upper()}"),
        hard_limit=hard,
        soft_limit=soft,
    )
    with connected(output, access) as client:
        request = ledger_service_pb2.CreateBudgetRequest(budget=budget, budget_id=budget_id)
        _show(output, client.unary(client.ledger.CreateBudget, request).budget, as_json=as_json)


@budgets.command("update")
@connecting
def update(
    name: Name,
    *,
    hard: Annotated[money_pb2.Money | None, _limit("The new hard limit.")] = None,
    soft: Annotated[money_pb2.Money | None, _limit("The new soft limit.")] = None,
    no_hard: Annotated[bool, typer.Option("--no-hard", help="Take the hard limit away.")] = False,
    no_soft: Annotated[bool, typer.Option("--no-soft", help="Take the soft limit away.")] = False,
    as_json: Json = False,
    access: Access,
) -> None:
    """Change the limits of a budget."""
    output = Output(as_json=as_json)
    paths = ["hard_limit"] * (no_hard or hard is not None) + ["soft_limit"] * (no_soft or soft is not None)
    budget = budget_pb2.Budget(
        name=_budget_name(name), hard_limit=None if no_hard else hard, soft_limit=None if no_soft else soft
    )
    with connected(output, access) as client:
        request = ledger_service_pb2.UpdateBudgetRequest(budget=budget, update_mask=FieldMask(paths=paths))
        _show(output, client.unary(client.ledger.UpdateBudget, request).budget, as_json=as_json)


@budgets.command("delete")
@connecting
def delete(name: Name, *, as_json: Json = False, access: Access) -> None:
    """End a budget, at once."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = ledger_service_pb2.DeleteBudgetRequest(name=_budget_name(name))
        answer = client.unary(client.ledger.DeleteBudget, request)
        if as_json:
            output.result(message_json(answer))
        else:
            output.write(f"{printable(request.name)} deleted\n")


@connecting
def prices(
    *,
    version: Annotated[int, typer.Option(min=0, help="A version of the price book; what new calls cost, if 0.")] = 0,
    as_json: Json = False,
    access: Access,
) -> None:
    """Print what a million tokens of each model cost, or a page of those that are priced by page."""
    output = Output(as_json=as_json)
    request = ledger_service_pb2.ListPricesRequest(price_book_version=version, page_size=_PAGE)
    with connected(output, access) as client:
        found: list[price_pb2.Price] = []
        while True:
            page = client.unary(client.ledger.ListPrices, request)
            found += page.prices
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        if as_json:
            for price in found:
                output.result(message_json(price))
            return
        table = Table("model", "sent", "received", "page", "", box=None, pad_edge=False)
        for price in found:
            by_page = price.HasField("per_page")
            tokens = ("", "") if by_page else (money(price.input_per_million), money(price.output_per_million))
            cells = (price.model, *tokens, money(price.per_page) if by_page else "")
            table.add_row(*(Text(printable(cell)) for cell in cells), "your own" if price.tenant_override else "")
        output.print(table)
        output.note(f"version {page.price_book_version}, for a million tokens, or for a page")


def _budget_name(name: str) -> str:
    return name if name.startswith("budgets/") else f"budgets/{name}"


def _show(output: Output, budget: budget_pb2.Budget, *, as_json: bool) -> None:
    if as_json:
        output.result(message_json(budget))
    else:
        output.print(_table([budget]))


def _table(found: list[budget_pb2.Budget]) -> Table:
    table = Table("budget", "subject", "period", box=None, pad_edge=False)
    for title in ("settled", "held", "hard limit", "soft limit", "reached"):
        table.add_column(title, justify="right")
    for budget in found:
        reached = max((threshold.percent for threshold in budget.reached_thresholds), default=0)
        cells = (
            budget.name + (" (operator's)" if budget.set_by_operator else ""),
            budget.subject,
            budget_pb2.BudgetPeriod.Name(budget.period).removeprefix("BUDGET_PERIOD_").lower(),
            money(budget.settled),
            money(budget.held),
            money(budget.hard_limit) if budget.HasField("hard_limit") else "",
            money(budget.soft_limit) if budget.HasField("soft_limit") else "",
            f"{reached} %" if reached else "",
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table
