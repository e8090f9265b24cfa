"""The use case: a question, answered from the pages that have to do with it, with citations that were checked."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from services.runtime.errors import FieldViolation, InvalidArgument
from services.summarizer.domain.answer_values import (
    Answered,
    AskEvent,
    Cited,
    CitedAnswer,
    Looked,
    Statement,
    StatementReady,
)
from services.summarizer.domain.events import TextDelta
from services.summarizer.domain.failover import Failover
from services.summarizer.domain.grounding import ground, text_of
from services.summarizer.domain.keys import content_key
from services.summarizer.domain.language import speaks
from services.summarizer.domain.map_reduce import Bill, Job
from services.summarizer.domain.models import Model, Models
from services.summarizer.domain.nothing_found import nothing_found
from services.summarizer.domain.packing import Packed, pack
from services.summarizer.domain.paid_calls import Calls, Order
from services.summarizer.domain.passages import PassageFinder
from services.summarizer.domain.personal_kinds import REPLACING_NOTHING, Counts, Policy
from services.summarizer.domain.plain_output import PlainStream
from services.summarizer.domain.ports import ActAs, Deadline, PageSource, Results
from services.summarizer.domain.ports_questions import PageAt
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.question_material import Gatherer, Material
from services.summarizer.domain.questions import Question, check, wanted
from services.summarizer.domain.savings import Savings, free_event
from services.summarizer.domain.single_flight import Emit, SingleFlight
from services.summarizer.domain.tails import Tails
from services.summarizer.domain.values import (
    Answer,
    Caller,
    Chunk,
    Consumption,
    Money,
    Options,
    Page,
    Prompt,
    Sentence,
    Stage,
    Style,
    TokenCount,
)
from services.summarizer.domain.veil import Restoring, Veil
from services.summarizer.domain.veiled import counts_of, hidden_job, restored_claims, untold, veil_for

MAX_SENTENCES = 8
"""Longest answer."""
MAX_DELTA_CHARS = 100_000
"""The contract's bound of StreamAskResponse.text_delta."""

AskFlights = SingleFlight[bytes, AskEvent]


class AnswerMaker:
    """Answers from pages that were found: packs them for a model, pays for its answer once, checks what it quotes."""

    def __init__(
        self, *, results: Results, paid: Calls, act_as: ActAs, anonymised: Callable[[Counts], None] = untold
    ) -> None:
        """`anonymised` hears what was replaced, by kind."""
        self._anonymised = anonymised
        self._results = results
        self._paid = paid
        self._act_as = act_as

    async def make(
        self, job: Job, material: Material, emit: Emit[AskEvent], deadline: Deadline, bill: Bill
    ) -> CitedAnswer:
        """The answer; text and statements are emitted on the way.

        Raises what Results, Books and Provider raise, InvalidArgument LANGUAGE_NOT_SUPPORTED, and FailedPrecondition
        MODEL_TOO_SMALL.
        """
        pages, veil = _spoken(job, material.pages), veil_for(job)
        packed, prompt = await asyncio.to_thread(_packed, job, pages, material.question.text, veil)
        emit(Looked(len(material.pages), len(packed.sources)))
        if not packed.sources:
            return _answer(job, material, packed, (), bill, cached=False)
        with self._act_as(job.caller, deadline):
            order = await self._order(job, material, packed, replace(prompt, chunk=packed.chunk))
            said = await self._said(order, bill, emit, veil)
        # A quote that stands on no page is looked for on all of them.
        sentences = await asyncio.to_thread(lambda: list(ground(restored_claims(said.claims, veil), packed.locator)))
        statements = tuple(_statement(sentence, packed.sources) for sentence in sentences)
        for statement in statements:
            emit(StatementReady(statement))
        answer = _answer(job, material, packed, statements, bill, cached=not bill.calls)
        self._anonymised(counts_of(veil))
        return replace(answer, anonymised=counts_of(veil))

    async def _order(self, job: Job, material: Material, packed: Packed, prompt: Prompt) -> Order:
        """The call that is to be made: for one document, or for none where it is made for several."""
        version = job.model.provider.version
        key = await asyncio.to_thread(content_key, prompt, model=job.model.name, provider_version=version)
        used = {source.document for source in packed.sources}
        quoted = tuple((name, number) for name, number in material.generations if name in used)
        if len(quoted) > 1:
            return Order(job.caller, "", job.model, prompt, key, purse=job.purse, others=quoted)
        ((document, generation),) = quoted
        return Order(job.caller, document, job.model, prompt, key, generation, job.purse)

    async def _said(self, order: Order, bill: Bill, emit: Emit[AskEvent], veil: Veil | None) -> Answer:
        """What the model says: known, or bought now."""
        known = await self._results.find(order.caller.tenant, [order.key])
        if order.key in known:
            return known[order.key].answer
        stream, restoring = PlainStream(), Restoring(veil)
        paid = await self._paid.make(order, lambda text: _emit_text(stream.feed(restoring.feed(text)), emit))
        _emit_text(stream.feed(restoring.finish()) + stream.finish(), emit)
        bill.calls.append(paid)
        return paid.answer


class StreamAsk:
    """Answers questions, each of them once for all who ask the same at the same time."""

    def __init__(
        self,
        *,
        models: Models,
        finder: PassageFinder,
        pages: PageSource,
        results: Results,
        maker: AnswerMaker,
        flights: AskFlights,
        savings: Savings,
        tails: Tails,
        act_as: ActAs,
        new_id: Callable[[], str],
        now_s: Callable[[], float],
        failed_over: Callable[[Model, Model, str], None],
        policy: Policy = REPLACING_NOTHING,
    ) -> None:
        self._policy = policy
        self._models = models
        self._gatherer = Gatherer(
            finder=finder, pages=pages, results=results, tails=tails, act_as=act_as, new_id=new_id
        )
        self._maker = maker
        self._flights = flights
        self._savings = savings
        self._act_as = act_as
        self._new_id = new_id
        self._now_s = now_s
        self._failed_over = failed_over

    async def __call__(
        self,
        caller: Caller,
        question: Question,
        options: Options,
        *,
        fallbacks: Sequence[str] = (),
        purse: Purse | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[AskEvent, None]:
        """Events of the answer, Answered last. Closing the iterator gives up; a run with no listener is cancelled.

        Of the options `language` and `model` count. `fallbacks`, `purse` and `deadline` are as for summaries.

        Raises InvalidArgument (nothing is asked, unknown model, language that it does not write),
        PermissionDenied (a model that the tenant does not allow), NotFound (no such document of this tenant),
        FailedPrecondition (DOCUMENTS_TOO_LARGE, a named document cannot be read, or MAX_COST_EXCEEDED),
        ResourceExhausted (budget, rate), Unavailable, DeadlineExceeded.
        """
        check(question)
        models = await self._models.lineup(caller.tenant, options.model, fallbacks)
        options = replace(options, model=models[0].name, anonymise=self._policy.kinds(options.anonymise))
        job = Job(caller, "", options, models[0], purse=purse)
        seat = self._flights.join(
            _flight_key(job, models, question),
            lambda emit, latest: self._run(job, models, question, emit, latest),
            deadline=deadline,
        )
        with seat:
            async for event in seat:
                if isinstance(event, Answered) and not seat.leads:
                    self._record_saving(caller, event.answer)
                    yield Answered(_free(event.answer))
                else:
                    yield event

    async def _run(
        self, job: Job, models: Sequence[Model], question: Question, emit: Emit[AskEvent], deadline: Deadline
    ) -> None:
        # As with summaries, reading has no deadline of its listeners: the last of them who leaves ends it.
        with self._act_as(job.caller):
            async with self._gatherer.gathered(job, question, lambda pages: emit(Looked(pages, 0))) as material:
                failover = Failover[CitedAnswer, AskEvent](
                    lambda asked, emit, bill: self._maker.make(asked, material, emit, deadline, bill),
                    observe=self._failed_over,
                )
                answer = await failover(job, models, emit)
        emit(Answered(answer))

    def _record_saving(self, caller: Caller, answer: CitedAnswer) -> None:
        event = free_event(
            event_id=self._new_id(),
            model=answer.model,
            document="",
            caller=caller,
            now_s=self._now_s(),
            source="shared",
            saved=answer.consumption.cost,
            operation="ask",
        )
        self._savings.add(caller, event)


class Ask:
    """The same for those who only want the answer."""

    def __init__(self, stream: StreamAsk) -> None:
        self._stream = stream

    async def __call__(
        self,
        caller: Caller,
        question: Question,
        options: Options,
        *,
        fallbacks: Sequence[str] = (),
        purse: Purse | None = None,
        deadline: float | None = None,
    ) -> CitedAnswer:
        """The answer. Raises what StreamAsk raises."""
        async with aclosing(
            self._stream(caller, question, options, fallbacks=fallbacks, purse=purse, deadline=deadline)
        ) as events:
            async for event in events:
                if isinstance(event, Answered):
                    return event.answer
        raise AssertionError("a stream of events ended without its last one")


def _flight_key(job: Job, models: Sequence[Model], question: Question) -> bytes:
    """Who pays, and how much, is part of it: a listener must not fail, or be served, on another one's budget."""
    filters = question.filters
    bound = None if job.purse is None else job.purse.key
    parts: list[object] = [
        *(job.caller.tenant, job.caller.actor, job.caller.project, question.text, question.max_passages),
        *(filters.documents, sorted(filters.languages), str(filters.stored_after), str(filters.stored_before)),
        *(job.options.language.lower(), [model.name for model in models], bound),
        [kind.value for kind in job.options.anonymise or ()],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def _packed(job: Job, pages: Sequence[tuple[PageAt, Page]], question: str, veil: Veil | None) -> tuple[Packed, Prompt]:
    """The passages, and what is asked about them once their chunk is put in. For threads."""
    if veil is not None:
        for text in (question, *(page.text for _, page in pages)):
            veil.learn(text)
        question = veil.hide(question)
    prompt = Prompt(
        Stage.ASK,
        hidden_job(job, veil).options,
        job.model.short_name,
        MAX_SENTENCES,
        chunk=Chunk(0, "", ()),
        question=question,
    )
    shown = str if veil is None else veil.hide
    packed = pack(pages, wanted(question).terms, job.model, prompt, shown=shown)
    if veil is not None:
        veil.keep((question, packed.chunk.text))
    return packed, prompt


def _spoken(job: Job, pages: Sequence[tuple[PageAt, Page]]) -> Sequence[tuple[PageAt, Page]]:
    """For a model that does not write, the pages that are in the language that was asked for. Nothing is reserved
    before."""
    language = job.options.language
    if job.model.abilities.writes or not language or not pages:
        return pages
    spoken = [(at, page) for at, page in pages if speaks(page.text, language)]
    if not spoken:
        raise InvalidArgument(
            "LANGUAGE_NOT_SUPPORTED",
            f"This model chooses sentences and cannot write {language!r}, which none of the pages is in. "
            "Leave the language empty or choose a model that writes.",
            fields=[FieldViolation("options.language", "must be the pages' own for a model that chooses sentences")],
        )
    return spoken


def _statement(sentence: Sentence, sources: Sequence[PageAt]) -> Statement:
    cited = tuple(Cited(sources[c.page - 1], c.quote, c.boxes) for c in sentence.citations)
    return Statement(sentence.text, cited)


def _answer(
    job: Job, material: Material, packed: Packed, statements: tuple[Statement, ...], bill: Bill, *, cached: bool
) -> CitedAnswer:
    """An answer of which nothing stands on any page is none, whatever the model says."""
    found = any(statement.grounded for statement in statements)
    text = text_of([Sentence(statement.text, ()) for statement in statements], Style.PARAGRAPH)
    return CitedAnswer(
        found=found,
        text=text if found else nothing_found(job.options.language, material.question.text),
        statements=statements,
        passages=packed.sources,
        model=job.model.name,
        extractive=not job.model.abilities.writes,
        cached=cached,
        failed_pages=material.failed,
        consumption=bill.consumption(),
    )


def _emit_text(text: str, emit: Emit[AskEvent]) -> None:
    for start in range(0, len(text), MAX_DELTA_CHARS):
        emit(TextDelta(text[start : start + MAX_DELTA_CHARS]))


def _free(answer: CitedAnswer) -> CitedAnswer:
    """The answer as it is for those for whom nothing was paid."""
    currency = answer.consumption.cost.currency
    nothing = Consumption(TokenCount(0, 0), provider_calls=0, cost=Money(currency, 0), settled=True, usage_event_ids=())
    return replace(answer, consumption=nothing)
