"""Work on a document is estimated, and then done with the same parts, to see what it really costs."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from services.summarizer.adapters.memory import MemoryBooks
from services.summarizer.adapters.memory_prices import MemoryPrices
from services.summarizer.domain.estimate import Estimate as Estimated
from services.summarizer.domain.estimate import EstimateSummary
from services.summarizer.domain.estimate_fields import EstimateFields
from services.summarizer.domain.estimate_question import EstimateQuestion
from services.summarizer.domain.estimate_thoughts import Thoughts
from services.summarizer.domain.extract_fields import Wanted
from services.summarizer.domain.models import Model, Models
from services.summarizer.domain.ports import Provider, Results
from services.summarizer.domain.prices import Prices
from services.summarizer.domain.values import Consumption, Length, Options, Page, Style
from tests.unit.summarizer.fields.test_extract_fields import Fields
from tests.unit.summarizer.flow.asking import AskFlow, question
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, Flow

SMALL = "mistral/mistral-small-latest"
PRICES = {SMALL: (150_000, 600_000)}

__all__ = [
    "PRICES",
    "SMALL",
    "Estimated",
    "estimate_of",
    "estimating",
    "estimating_fields",
    "estimating_question",
    "flow_with",
    "question_estimate_of",
    "thoughts_of",
]


def estimate_of(
    flow: Flow, *, models: Models | None = None, prices: Prices | None = None, results: Results | None = None
) -> EstimateSummary:
    """The use case over the parts of a flow."""
    return EstimateSummary(thoughts_of(flow, models=models, prices=prices, results=results), cache=flow.cache)


def thoughts_of(
    flow: Flow, *, models: Models | None = None, prices: Prices | None = None, results: Results | None = None
) -> Thoughts:
    """What estimates of any kind are made with, over the parts of a flow."""
    return Thoughts(
        models=models or flow.models(),
        pages=flow.pages,
        pictures=flow.pictures,
        results=results or flow.store,
        prices=prices or MemoryPrices(flow.books.prices, by_page=flow.books.by_page),
        tails=flow.tails,
        new_id=lambda: str(uuid.uuid4()),
    )


async def estimating(
    provider: Provider, model: str, prices: MemoryPrices, pages: Sequence[Page], length: Length
) -> tuple[Estimated, int]:
    """The estimate, and what the summary then cost in micro-units."""
    flow = flow_with(provider, model, pages)
    options = Options(length, Style.PARAGRAPH, "", "", model)
    found = await estimate_of(flow, prices=prices)(ALICE, DOCUMENT, options)
    summary = await flow.summarize()(ALICE, DOCUMENT, options)
    return found, await _paid(flow, summary.consumption)


async def estimating_fields(
    provider: Provider, model: str, prices: MemoryPrices, pages: Sequence[Page], schema: Mapping[str, Any]
) -> tuple[Estimated, int]:
    """The same for fields."""
    flow = flow_with(provider, model, pages)
    fields = Fields(flow)
    thoughts = thoughts_of(flow, prices=prices)
    found = await EstimateFields(thoughts, schemas=fields.schemas)(ALICE, DOCUMENT, Wanted(schema=schema))
    return found, await _paid(flow, (await fields(dict(schema))).consumption)


async def estimating_question(
    provider: Provider, model: str, prices: MemoryPrices, pages: Sequence[Page], text: str
) -> tuple[Estimated, int]:
    """The same for a question."""
    flow = AskFlow(flow_with(provider, model, pages))
    estimate = question_estimate_of(flow, prices=prices)
    found = await estimate(ALICE, question(text, DOCUMENT), Options(Length.MEDIUM, Style.PARAGRAPH, "", "", model))
    answer = await flow.ask(question(text, DOCUMENT), model=model)
    return found, await _paid(flow.flow, answer.consumption)


def question_estimate_of(
    asking: AskFlow, *, prices: Prices | None = None, embedder: Model | None = None
) -> EstimateQuestion:
    """The use case over the parts of a flow."""
    thoughts = thoughts_of(asking.flow, prices=prices)
    return EstimateQuestion(thoughts, search=asking.finds, reader=asking.finds, embedder=embedder)


def flow_with(provider: Provider, model: str, pages: Sequence[Page]) -> Flow:
    """A flow with a document, whose one model is this one."""
    flow = Flow(books=MemoryBooks(PRICES))
    models = Models({provider.name: provider}, default=model)
    flow.models = lambda: models  # type: ignore[method-assign]  # the provider of this run
    flow.pages.put(ALICE.tenant, DOCUMENT, *pages)
    return flow


async def _paid(flow: Flow, consumption: Consumption) -> int:
    await flow.tails.close(1)
    assert consumption.cost.micros == flow.books.settled_micros()
    return consumption.cost.micros
