"""What models cost, as the ledger tells it."""

from dataclasses import dataclass
from typing import Protocol

from services.summarizer.domain.values import Money, TokenCount

_TOKENS_PER_PRICE = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """Micro-units for a million tokens, sent and received, or for a page, and the version of the price book that says
    so."""

    currency: str
    input_micros_per_million: int
    output_micros_per_million: int
    version: int
    page_micros: int = 0

    def of(self, tokens: TokenCount) -> Money:
        """The price of one call, rounded up once as the ledger does (docs/ledger.md)."""
        parts = (
            tokens.input_tokens * self.input_micros_per_million + tokens.output_tokens * self.output_micros_per_million
        )
        return Money(self.currency, -(-parts // _TOKENS_PER_PRICE) + tokens.pages * self.page_micros)


class Prices(Protocol):
    """The price book of the caller's tenant."""

    async def of(self, model: str) -> ModelPrice:
        """The price of `{provider}/{model}` for a call that is made now. Raises FailedPrecondition MODEL_UNPRICED,
        Unavailable, DeadlineExceeded."""
        ...
