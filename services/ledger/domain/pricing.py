"""What a call costs: integers only, rounded in one place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.ledger.domain.values import Tokens
from services.runtime.errors import FailedPrecondition

TOKENS_PER_PRICE = 1_000_000
"""Prices are for this many tokens, as providers publish them."""

_WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-units for a million tokens, sent and received; or with `page_micros` micro-units for a page, of a model
    that is priced by page. What is counted as sent are pages then, and the other two are 0."""

    input_micros_per_million: int
    output_micros_per_million: int
    page_micros: int = 0


def cost_micros(price: Price, tokens: Tokens) -> int:
    """The cost of one call in micro-units.

    ceil((sent x input price + received x output price) / 1,000,000): both parts are added first and the sum is rounded
    up once for each call. A call that used anything priced therefore never costs nothing, and the rounding
    adds less than one micro-unit to a call. Of a model that is priced by page it is sent x page price.
    """
    return _cost_micros(price, tokens.sent, tokens.received)


def costs_micros(prices: Sequence[Price], sent: Sequence[int], received: Sequence[int]) -> list[int]:
    """The cost of each of several calls, as `cost_micros` says."""
    return list(map(_cost_micros, prices, sent, received))


def _cost_micros(price: Price, sent: int, received: int) -> int:
    parts = sent * price.input_micros_per_million + received * price.output_micros_per_million
    return -(-parts // TOKENS_PER_PRICE) + sent * price.page_micros


@dataclass(frozen=True, slots=True)
class PriceBook:
    """One version of the prices, which never changes.

    `prices` maps `{provider}/{model}`, or the beginning of such a name followed by `*`, to its price. `overrides` are
    those of a single tenant, which go before.
    """

    version: int
    prices: Mapping[str, Price]
    overrides: Mapping[str, Price] = field(default_factory=dict)

    def price(self, model: str) -> Price:
        """The price of a model: its own, else that of the longest pattern that fits; overrides before the list. A
        pattern of an override says nothing about a model whose unit in the list is another: a page is no token.

        Raises FailedPrecondition MODEL_UNPRICED where there is none: what has no price is refused, never free.
        """
        listed, own = _price(self.prices, model), _price(self.overrides, model)
        if own is not None and (
            listed is None or model in self.overrides or bool(own.page_micros) == bool(listed.page_micros)
        ):
            return own
        if listed is not None:
            return listed
        raise FailedPrecondition(
            "MODEL_UNPRICED",
            f"The price book (version {self.version}) has no price for this model. Use a model that it lists.",
            metadata={"price_book_version": str(self.version)},
        )


def _price(prices: Mapping[str, Price], model: str) -> Price | None:
    exact = prices.get(model)
    if exact is not None and not model.endswith(_WILDCARD):
        return exact
    for length in range(len(model), -1, -1):
        found = prices.get(model[:length] + _WILDCARD)
        if found is not None:
            return found
    return None
