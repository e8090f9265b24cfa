"""Money for people: exact, never rounded."""

from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from pagemesh.common.v1 import money_pb2

_MOST = 10**9
_MICROS = 1_000_000


def money(amount: money_pb2.Money) -> str:
    """Such as `0.002150 USD`: micro-units are exact at six places."""
    return f"{amount.micros // _MICROS}.{amount.micros % _MICROS:06d} {amount.currency or 'USD'}"


def amount(text: str) -> money_pb2.Money:
    """Dollars such as `12.50`, exact to a millionth. Raises BadParameter for anything else."""
    try:
        dollars = Decimal(text)
    except InvalidOperation as error:
        raise typer.BadParameter(f"{text!r} is no amount. Try 12.50.") from error
    if not dollars.is_finite() or not 0 <= dollars <= _MOST or dollars * _MICROS % 1:
        raise typer.BadParameter(f"{text!r} is not between 0 and {_MOST}, with at most six decimal places.")
    return money_pb2.Money(currency="USD", micros=int(dollars * _MICROS))


MaxCost = Annotated[
    money_pb2.Money | None,
    typer.Option(parser=amount, metavar="USD", help="Spend no more than this, such as 0.05; see `pagemesh estimate`."),
]
