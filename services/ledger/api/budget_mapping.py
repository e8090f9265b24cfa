"""Messages about budgets, prices and webhooks to values of the domain and back."""

from pagemesh.common.v1 import money_pb2
from pagemesh.ledger.v1 import budget_pb2, ledger_service_pb2, price_pb2, webhook_pb2
from services.ledger.api.mapping import money, timestamp_of
from services.ledger.domain.budgets import BudgetStatus, Limit, Period
from services.ledger.domain.checks import invalid_field
from services.ledger.domain.pricing import PriceBook
from services.ledger.domain.values import CURRENCY
from services.ledger.domain.webhooks import Webhook

_PERIODS = {
    budget_pb2.BUDGET_PERIOD_DAY: Period.DAY,
    budget_pb2.BUDGET_PERIOD_MONTH: Period.MONTH,
    budget_pb2.BUDGET_PERIOD_TOTAL: Period.TOTAL,
}
_PERIOD_NAMES = {period: number for number, period in _PERIODS.items()}
_LIMITS = {
    Limit.HARD: budget_pb2.BUDGET_LIMIT_TYPE_HARD,
    Limit.SOFT: budget_pb2.BUDGET_LIMIT_TYPE_SOFT,
}
_FIELDS = {"hard_limit": Limit.HARD, "soft_limit": Limit.SOFT}


def period_of(message: budget_pb2.Budget) -> Period:
    """Raises InvalidArgument where none is named."""
    period = _PERIODS.get(message.period)
    if period is None:
        raise invalid_field("budget.period", "must be DAY, MONTH or TOTAL")
    return period


def limit_of(message: budget_pb2.Budget, field: str) -> int | None:
    """The micro-units of `hard_limit` or `soft_limit`, None where it is absent. Raises InvalidArgument."""
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    amount: money_pb2.Money = getattr(message, field)
    if amount.currency != CURRENCY:
        raise invalid_field(f"budget.{field}.currency", f"must be {CURRENCY}")
    return amount.micros


def changes_of(request: ledger_service_pb2.UpdateBudgetRequest) -> dict[Limit, int | None]:
    """Which limits are to be what: those that the mask names, or those that are set where there is no mask."""
    named = request.update_mask.paths or [field for field in _FIELDS if request.budget.HasField(field)]  # type: ignore[arg-type]
    return {_FIELDS[field]: limit_of(request.budget, field) for field in named}


def budget_id_of(name: str, field: str = "name") -> str:
    """The id within `budgets/{id}`. Raises InvalidArgument where the name is empty."""
    if not name:
        raise invalid_field(field, "must be budgets/{id}")
    return name.removeprefix("budgets/")


def budget_message(status: BudgetStatus) -> budget_pb2.Budget:
    """A budget as callers see it."""
    budget = status.budget
    message = budget_pb2.Budget(
        name=budget.name,
        subject=budget.subject,
        period=_PERIOD_NAMES[budget.period],
        settled=money(status.settled_micros),
        held=money(status.held_micros),
        set_by_operator=budget.operator,
        create_time=timestamp_of(budget.create_time),
        update_time=timestamp_of(budget.update_time),
        reached_thresholds=[
            budget_pb2.BudgetThreshold(
                limit_type=_LIMITS[crossing.kind], percent=crossing.percent, reach_time=timestamp_of(crossing.time)
            )
            for crossing in status.crossings
        ],
    )
    if budget.hard_micros is not None:
        message.hard_limit.CopyFrom(money(budget.hard_micros))
    if budget.soft_micros is not None:
        message.soft_limit.CopyFrom(money(budget.soft_micros))
    if status.end is not None:
        message.period_start_time.CopyFrom(timestamp_of(status.start))
        message.period_end_time.CopyFrom(timestamp_of(status.end))
    return message


def price_message(book: PriceBook, model: str) -> price_pb2.Price:
    """One line of a price book."""
    own = model in book.overrides
    price = book.overrides[model] if own else book.prices[model]
    return price_pb2.Price(
        model=model,
        input_per_million=money(price.input_micros_per_million),
        output_per_million=money(price.output_micros_per_million),
        tenant_override=own,
        per_page=money(price.page_micros) if price.page_micros else None,
    )


def webhook_message(webhook: Webhook) -> webhook_pb2.Webhook:
    """A webhook as its owner sees it."""
    return webhook_pb2.Webhook(
        name=webhook.name,
        url=webhook.url,
        create_time=timestamp_of(webhook.create_time),
        event_types=webhook.event_types,
    )
