"""A provider that does what a test tells it and remembers its bill, and the flow around it in memory."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

from services.runtime.errors import NotFound
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import MemoryBooks, MemoryCache, MemoryPages, MemoryStore
from services.summarizer.adapters.memory_pictures import MemoryPictures
from services.summarizer.adapters.memory_turns import MemoryTurns
from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.fields_values import AnyPrompt, FieldsPrompt, chat_prompt
from services.summarizer.domain.map_reduce import MapReduce
from services.summarizer.domain.model_policy import NoPolicies, Policies
from services.summarizer.domain.models import Models
from services.summarizer.domain.paid_calls import PaidCalls
from services.summarizer.domain.pictures import PagePrompt
from services.summarizer.domain.ports import Abilities, Books, Outbox, PageSource, Results, SummaryCache
from services.summarizer.domain.savings import Savings
from services.summarizer.domain.scans import Scans
from services.summarizer.domain.sightings import Sightings
from services.summarizer.domain.single_flight import SingleFlight
from services.summarizer.domain.summarize import Flights, StreamSummarize, Summarize, SummaryMaker
from services.summarizer.domain.tails import Tails
from services.summarizer.domain.turns import Turns
from services.summarizer.domain.values import (
    Answer,
    Box,
    Caller,
    Claim,
    Length,
    Options,
    Page,
    Prompt,
    Quote,
    Style,
    TokenCount,
    Word,
)

MODEL = "scripted/writer"
PRICES = {MODEL: (1_000_000, 2_000_000)}
"""One micro-unit for a token sent and two for one received."""
READER = "reader/scan"
PAGE_MICROS = 4_000
OUTPUT_TOKENS = 100
FRAME_TOKENS = 10

ALICE = Caller("acme", "apiKeys/alice", "", frozenset({"summaries.create", "documents.read"}), "request-alice")
BOB = Caller("acme", "apiKeys/bob", "", frozenset({"summaries.create", "documents.read"}), "request-bob")
STRANGER = Caller(
    "globex", "apiKeys/stranger", "", frozenset({"summaries.create", "documents.read"}), "request-stranger"
)
DOCUMENT = "documents/" + "0" * 32


def options(**changes: object) -> Options:
    wanted = {"length": Length.SHORT, "style": Style.PARAGRAPH, "language": "", "focus": "", "model": MODEL}
    return Options(**{**wanted, **changes})  # type: ignore[arg-type]  # tests name only what they change


def page(number: int, text: str) -> Page:
    """A page whose words stand side by side in lines of their own text."""
    words = []
    for line, row in enumerate(text.split("\n")):
        for column, word in enumerate(row.split()):
            box = Box(10.0 * column, 12.0 * line, 10.0 * column + 9, 12.0 * line + 10)
            words.append(Word(word, box, block=0, line=line))
    return Page(number, text, tuple(words))


def word_page(number: int, count: int) -> Page:
    """A page of one sentence of `count` different words."""
    return page(number, " ".join(f"p{number}w{index}" for index in range(count - 1)) + " end.")


Behaviour = Callable[[Prompt], Awaitable[Answer]]
FieldsBehaviour = Callable[[FieldsPrompt], Awaitable[Answer]]


async def _finds_nothing(_: FieldsPrompt) -> Answer:
    return Answer((), TokenCount(1, 1))


class ScriptedProvider:
    """Counts a token for each word. `bill` holds what it charged for, in the order of the answers."""

    name = "scripted"
    version = "1"

    def __init__(self, behaviour: Behaviour | None = None, *, context_tokens: int = 200) -> None:
        self.behaviour: Behaviour = behaviour or self.answer
        self.context_tokens = context_tokens
        self.writes = True
        self.bills_unanswered = True
        self.prompts: list[Prompt] = []
        self.fields: FieldsBehaviour = _finds_nothing
        self.fields_prompts: list[FieldsPrompt] = []
        self.bill: list[TokenCount] = []
        self.running = 0
        self.most_running = 0
        self.cancelled = 0

    def models(self) -> tuple[str, ...]:
        return ("writer",)

    def abilities(self, model: str) -> Abilities:
        if model != "writer":
            raise NotFound("MODEL_UNKNOWN", "no such model")
        return Abilities(self.context_tokens, OUTPUT_TOKENS, writes=self.writes, bills_unanswered=self.bills_unanswered)

    def count(self, prompt: AnyPrompt) -> TokenCount:
        prompt = chat_prompt(prompt)
        texts = [] if isinstance(prompt, FieldsPrompt) else [claim.text for claim in prompt.claims]
        if prompt.chunk is not None:
            texts.append(prompt.chunk.text)
        return TokenCount(FRAME_TOKENS + sum(len(text.split()) for text in texts), OUTPUT_TOKENS)

    async def complete(self, prompt: AnyPrompt) -> Answer:
        if isinstance(prompt, FieldsPrompt):
            self.fields_prompts.append(prompt)
            return await self.fields(prompt)
        assert isinstance(prompt, Prompt)
        return await self._call(prompt)

    async def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
        assert isinstance(prompt, Prompt), "fields are not streamed"
        answer = await self._call(prompt)
        for claim in answer.claims:
            yield claim.text
        yield answer

    async def answer(self, prompt: Prompt) -> Answer:
        """Says the first words of each page, or repeats the first claims."""
        if prompt.chunk is not None:
            claims = tuple(
                Claim(f"Page {number} says so.", (Quote(" ".join(_text(prompt, number).split()[:4]), number),))
                for number in prompt.chunk.pages
            )
        else:
            claims = prompt.claims
        return self.charge(prompt, claims[: prompt.max_sentences])

    def charge(self, prompt: Prompt, claims: tuple[Claim, ...]) -> Answer:
        tokens = TokenCount(self.count(prompt).input_tokens, sum(len(c.text.split()) for c in claims))
        self.bill.append(tokens)
        return Answer(claims, tokens)

    def billed_micros(self) -> int:
        return sum(tokens.input_tokens + 2 * tokens.output_tokens for tokens in self.bill)

    async def _call(self, prompt: Prompt) -> Answer:
        self.prompts.append(prompt)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self.behaviour(prompt)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def _text(prompt: Prompt, number: int) -> str:
    assert prompt.chunk is not None
    return " ".join(prompt.chunk.text[start:end] for start, end, page in prompt.chunk.spans if page == number)


@dataclass
class ScriptedReader:
    """A model named reader/scan that reads pictures: what they say is what they are made of, or what `says` says."""

    name = "reader"
    version = "1"

    def __init__(self) -> None:
        self.calls: list[PagePrompt] = []
        self.says: Callable[[bytes], Awaitable[str]] = _as_drawn
        self.bills_unanswered = True

    def models(self) -> tuple[str, ...]:
        return ("scan",)

    def abilities(self, model: str) -> Abilities:
        if model != "scan":
            raise NotFound("MODEL_UNKNOWN", "There is no such model.")
        return Abilities(0, 0, writes=False, bills_unanswered=self.bills_unanswered)

    def count(self, prompt: AnyPrompt) -> TokenCount:
        return TokenCount(0, 0, pages=1)

    async def complete(self, prompt: AnyPrompt) -> Answer:
        assert isinstance(prompt, PagePrompt)
        self.calls.append(prompt)
        return Answer((), TokenCount(0, 0, pages=1), text=await self.says(prompt.picture.content))

    async def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
        yield await self.complete(prompt)


async def _as_drawn(content: bytes) -> str:
    await asyncio.sleep(0)
    return content.decode()


class Clock:
    now_s: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Flow:
    """Everything between the servicer and the ports; a test may replace any port before it builds."""

    provider: ScriptedProvider = field(default_factory=ScriptedProvider)
    pages: MemoryPages = field(default_factory=MemoryPages)
    books: MemoryBooks = field(default_factory=lambda: MemoryBooks(PRICES, by_page={READER: PAGE_MICROS}))
    cache: MemoryCache = field(default_factory=MemoryCache)
    clock: Clock = field(default_factory=Clock)
    tails: Tails = field(default_factory=Tails)
    dropped: list[int] = field(default_factory=list)
    joins: list[None] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    pictures: MemoryPictures = field(default_factory=MemoryPictures)
    reader: ScriptedReader = field(default_factory=ScriptedReader)

    others: dict[str, ScriptedProvider] = field(default_factory=dict)
    """Further providers, by name."""
    fallbacks: tuple[str, ...] = ()
    policies: Policies = field(default_factory=NoPolicies)
    failovers: list[tuple[str, str, str]] = field(default_factory=list)
    passed_s: float = 0.0
    """Seconds that went by for what was seen."""

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.turns = MemoryTurns(self.clock)
        self.flights: Flights = SingleFlight(joined=lambda: self.joins.append(None))
        self._ids = (f"00000000-0000-4000-8000-{n:012d}" for n in itertools.count(1))

    def paid(
        self, *, books: Books | None = None, results: Results | None = None, outbox: Outbox | None = None
    ) -> PaidCalls:
        return PaidCalls(
            books=books or self.books,
            results=results or self.store,
            outbox=outbox or self.store,
            turns=Turns(book=self.turns, results=self.store, new_id=lambda: str(uuid.uuid4())),
            tails=self.tails,
            new_id=lambda: next(self._ids),
            now_s=self.clock,
            observe=lambda _, outcome: self.outcomes.append(outcome),
            sleep=lambda _: asyncio.sleep(0),
        )

    def savings(self, *, books: Books | None = None) -> Savings:
        return Savings(books=books or self.books, act_as=act_as, dropped=self.dropped.append)

    def models(self) -> Models:
        providers = {self.provider.name: self.provider, **self.others}
        return Models(
            providers,
            default=MODEL,
            fallbacks=self.fallbacks,
            policies=self.policies,
            ocr_providers={"reader": self.reader},
        )

    def scans(self, source: PageSource, map_reduce: MapReduce) -> Scans:
        return Scans(source, self.pictures, map_reduce)

    def stream(
        self,
        *,
        paid: PaidCalls | None = None,
        pages: PageSource | None = None,
        cache: SummaryCache | None = None,
        savings: Savings | None = None,
    ) -> StreamSummarize:
        source, map_reduce = pages or self.pages, MapReduce(results=self.store, paid=paid or self.paid())
        return StreamSummarize(
            models=self.models(),
            sightings=Sightings(source, now_s=self.clock, monotonic_s=lambda: self.passed_s),
            cache=cache or self.cache,
            flights=self.flights,
            maker=SummaryMaker(scans=self.scans(source, map_reduce), map_reduce=map_reduce, act_as=act_as),
            savings=savings or self.savings(),
            keeper=Keeper(
                pages=source,
                results=self.store,
                cache=cache or self.cache,
                tails=self.tails,
                act_as=act_as,
                new_id=lambda: str(uuid.uuid4()),
            ),
            new_id=lambda: next(self._ids),
            now_s=self.clock,
            failed_over=lambda asked, instead, why: self.failovers.append((asked.name, instead.name, why)),
        )

    def summarize(self, stream: StreamSummarize | None = None) -> Summarize:
        return Summarize(stream or self.stream())


async def until(condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
    """Lets the loop go on until the condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0)
