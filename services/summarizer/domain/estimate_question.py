"""The use case: what an answer to a question would use, cost and take, found out without spending anything."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.summarizer.domain.answer_values import AskEvent, CitedAnswer
from services.summarizer.domain.ask import AnswerMaker
from services.summarizer.domain.embedding import query_prompt
from services.summarizer.domain.estimate import Estimate, Outlay, outlay_of
from services.summarizer.domain.estimate_thoughts import Thoughts, acting_as_it_is
from services.summarizer.domain.expected_calls import Counted, ExpectedCalls, Guess
from services.summarizer.domain.keys import embedding_key
from services.summarizer.domain.map_reduce import Bill, Job
from services.summarizer.domain.models import Model
from services.summarizer.domain.paid_calls import Paid
from services.summarizer.domain.passages import PassageFinder
from services.summarizer.domain.ports import Results, no_deadline
from services.summarizer.domain.ports_questions import Filters, PageAt, PageReader, PageSearch
from services.summarizer.domain.question_material import Gatherer, Material
from services.summarizer.domain.questions import Question, check
from services.summarizer.domain.values import Answer, Caller, Options, TokenCount


class EstimateQuestion:
    """Goes the way of a question with a call that is made in thought only (see expected_calls.py)."""

    def __init__(self, thoughts: Thoughts, *, search: PageSearch, reader: PageReader, embedder: Model | None) -> None:
        """`embedder` makes vectors of questions, where the deployment has one."""
        self._thoughts = thoughts
        self._search = search
        self._reader = reader
        self._embedder = embedder

    async def __call__(
        self, caller: Caller, question: Question, options: Options, *, at: str = "question."
    ) -> Estimate:
        """The estimate, under the name of the question's first document; arguments are those of StreamAsk, and `at` is
        where the request says them. Where the search would need a vector of the question that was not paid for yet, it
        searches by words alone, and the vector is part of the price.

        Raises what StreamAsk raises before its first call to a model, FailedPrecondition MODEL_UNPRICED, and
        Unavailable where the ledger cannot tell the price.
        """
        check(question, field=f"{at}question")
        thoughts = self._thoughts
        model = await thoughts.models.chosen(caller.tenant, options.model, field=f"{at}options.model")
        options = replace(options, model=model.name, anonymise=thoughts.policy.kinds(options.anonymise))
        price = await thoughts.prices.of(model.name)
        job = Job(caller, "", options, model)
        search = _Search(self._search, self._embedder, thoughts.results, job)
        finder = PassageFinder(search=search, reader=self._reader, by_meaning=self._embedder is not None)
        gatherer = Gatherer(
            finder=finder,
            pages=thoughts.pages,
            results=thoughts.results,
            tails=thoughts.tails,
            act_as=acting_as_it_is,
            new_id=thoughts.new_id,
        )
        counted: Counted = {}
        calls = {guess: ExpectedCalls(price, guess, counted) for guess in (Guess.LOW, Guess.EXPECTED, Guess.HIGH)}
        async with gatherer.gathered(job, question, _untold, in_thought=True) as material:
            bought = [await self._vector(most) for most in search.missing]
            made = [await self._outlay(job, material, calls[guess], bought) for guess in calls]
        (low, answer), (expected, _), (high, _) = made
        parts = 1 if answer.passages else 0
        return Estimate(
            question.filters.documents[0] if question.filters.documents else "",
            model.name,
            page_count=len(answer.passages),
            failed_page_count=len(material.failed),
            chunk_count=parts,
            free_chunk_count=parts - (1 if calls[Guess.EXPECTED].seconds else 0),
            low=low,
            expected=expected,
            high=high,
            price_book_version=price.version,
            anonymised=answer.anonymised,
        )

    async def _outlay(
        self, job: Job, material: Material, calls: ExpectedCalls, bought: Sequence[Paid]
    ) -> tuple[Outlay, CitedAnswer]:
        bill = Bill()
        maker = AnswerMaker(results=self._thoughts.results, paid=calls, act_as=acting_as_it_is)
        answer = await maker.make(job, material, _unheard, no_deadline, bill)
        bill.calls += bought
        return outlay_of(bill, calls.seconds), answer

    async def _vector(self, most: TokenCount) -> Paid:
        """A vector of the question, in thought: it is asked for once, whoever looks how often."""
        assert self._embedder is not None, "without a model nothing is missing"
        price = await self._thoughts.prices.of(self._embedder.name)
        share = self._embedder.abilities.counted_share
        used = TokenCount(round(most.input_tokens * share), 0)
        return Paid(Answer((), used), "", price.of(used), settled=True)


@dataclass(slots=True)
class _Search:
    """The search by words; by meaning only with a vector that was paid for before. `missing` is what the vector that
    was not can use at most."""

    search: PageSearch
    embedder: Model | None
    results: Results
    job: Job
    missing: list[TokenCount] = field(default_factory=list)

    async def find(self, query: str, filters: Filters, limit: int) -> Sequence[PageAt]:
        """As PageSearch.find."""
        return await self.search.find(query, filters, limit)

    async def near(self, text: str, filters: Filters, limit: int) -> Sequence[PageAt]:
        """As PageSearch.near, where it costs nothing."""
        assert self.embedder is not None, "nobody looks for meaning without a model"
        model = self.embedder
        prompt = query_prompt(model, text)
        key = embedding_key(prompt, model=model.name, provider_version=model.provider.version)
        if key in await self.results.find(self.job.caller.tenant, [key]):
            return await self.search.near(text, filters, limit)
        self.missing = [await asyncio.to_thread(model.provider.count, prompt)]
        return ()


def _untold(pages: int) -> None:
    """Nobody watches an estimate being made."""


def _unheard(event: AskEvent) -> None:
    """Nor what an answer would say."""
