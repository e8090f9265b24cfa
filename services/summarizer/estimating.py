"""Wires what tells prices before anything is spent; part of `__main__`."""

from collections.abc import Callable

from services.summarizer.adapters.extractor_client import ExtractorPages
from services.summarizer.adapters.extractor_search import ExtractorSearch
from services.summarizer.domain.estimate import EstimateSummary
from services.summarizer.domain.estimate_fields import EstimateFields
from services.summarizer.domain.estimate_question import EstimateQuestion
from services.summarizer.domain.estimate_thoughts import Thoughts
from services.summarizer.domain.estimates import Estimator
from services.summarizer.domain.models import Models
from services.summarizer.domain.personal_kinds import Policy
from services.summarizer.domain.ports import Results
from services.summarizer.domain.schema_book import SchemaBook
from services.summarizer.domain.tails import Tails
from services.summarizer.outside import Outside


def compose(
    *,
    policy: Policy,
    world: Outside,
    models: Models,
    results: Results,
    schemas: SchemaBook,
    tails: Tails,
    new_id: Callable[[], str],
) -> Estimator:
    """What estimates, over the documents, models and results of the runs."""
    thoughts = Thoughts(
        models=models,
        pages=world.pages,
        pictures=world.pictures,
        results=results,
        prices=world.prices,
        tails=tails,
        new_id=new_id,
        policy=policy,
    )
    reader = ExtractorPages(world.extractor)
    return Estimator(
        summary=EstimateSummary(thoughts, cache=world.cache),
        fields=EstimateFields(thoughts, schemas=schemas),
        question=EstimateQuestion(
            thoughts, search=ExtractorSearch(world.extractor), reader=reader, embedder=world.embedder
        ),
        reader=reader,
    )
