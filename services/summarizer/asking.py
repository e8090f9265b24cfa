"""Wires what answers questions; part of `__main__`."""

import time
from collections.abc import Callable

from services.runtime.clients import MeshClient
from services.summarizer.adapters import signals
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.extractor_client import ExtractorPages
from services.summarizer.adapters.extractor_search import ExtractorSearch
from services.summarizer.domain.ask import AnswerMaker, AskFlights, StreamAsk
from services.summarizer.domain.models import Models
from services.summarizer.domain.paid_calls import Calls
from services.summarizer.domain.passages import PassageFinder
from services.summarizer.domain.personal_kinds import Policy
from services.summarizer.domain.ports import Results
from services.summarizer.domain.savings import Savings
from services.summarizer.domain.tails import Tails


def compose(
    *,
    policy: Policy,
    models: Models,
    extractor: MeshClient,
    results: Results,
    paid: Calls,
    flights: AskFlights,
    savings: Savings,
    tails: Tails,
    new_id: Callable[[], str],
    by_meaning: bool,
) -> StreamAsk:
    """What answers questions, over the models, money and results of summaries; `by_meaning` where vectors are made."""
    pages = ExtractorPages(extractor)
    return StreamAsk(
        models=models,
        finder=PassageFinder(search=ExtractorSearch(extractor), reader=pages, by_meaning=by_meaning),
        pages=pages,
        results=results,
        maker=AnswerMaker(anonymised=signals.anonymised, results=results, paid=paid, act_as=act_as),
        flights=flights,
        savings=savings,
        tails=tails,
        act_as=act_as,
        new_id=new_id,
        now_s=time.time,
        policy=policy,
        failed_over=signals.failed_over,
    )
