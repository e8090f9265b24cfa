"""A document is estimated, and then summarised with the same parts, to see what it really costs."""

import uuid
from collections.abc import Sequence

from services.summarizer.adapters.memory import MemoryBooks
from services.summarizer.adapters.memory_prices import MemoryPrices
from services.summarizer.domain.estimate import Estimate as Estimated
from services.summarizer.domain.estimate import EstimateSummary
from services.summarizer.domain.models import Models
from services.summarizer.domain.ports import Provider, Results
from services.summarizer.domain.prices import Prices
from services.summarizer.domain.similar import Similar
from services.summarizer.domain.values import Length, Options, Page, Style
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, Flow

SMALL = "mistral/mistral-small-latest"
PRICES = {SMALL: (150_000, 600_000)}

__all__ = ["PRICES", "SMALL", "Estimated", "estimate_of", "estimating"]


def estimate_of(
    flow: Flow, *, models: Models | None = None, prices: Prices | None = None, results: Results | None = None
) -> EstimateSummary:
    """The use case over the parts of a flow."""
    return EstimateSummary(
        models=models or flow.models(),
        pages=flow.pages,
        pictures=flow.pictures,
        cache=flow.cache,
        results=results or flow.store,
        prices=prices or MemoryPrices(flow.books.prices, by_page=flow.books.by_page),
        tails=flow.tails,
        new_id=lambda: str(uuid.uuid4()),
        similar=Similar(flow.similar, remembers=False),
    )


async def estimating(
    provider: Provider, model: str, prices: MemoryPrices, pages: Sequence[Page], length: Length
) -> tuple[Estimated, int]:
    """The estimate, and what the summary then cost in micro-units."""
    flow = Flow(books=MemoryBooks(PRICES))
    models = Models({provider.name: provider}, default=model)
    flow.models = lambda: models  # type: ignore[method-assign]  # the provider of this run
    flow.pages.put(ALICE.tenant, DOCUMENT, *pages)
    options = Options(length, Style.PARAGRAPH, "", "", model)
    found = await estimate_of(flow, prices=prices)(ALICE, DOCUMENT, options)
    summary = await flow.summarize()(ALICE, DOCUMENT, options)
    await flow.tails.close(1)
    assert summary.consumption.cost.micros == flow.books.settled_micros()
    return found, summary.consumption.cost.micros
