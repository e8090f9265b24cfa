"""Answers that were paid for once and serve parts of other documents that are nearly the same, where the caller wants
that (ADR 39)."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.runtime.errors import PagemeshError
from services.summarizer.domain.keys import question_key
from services.summarizer.domain.likeness import LEAST_ALIKE, Drawn, Marks, Text, likeness, moved
from services.summarizer.domain.models import Model
from services.summarizer.domain.prices import Prices
from services.summarizer.domain.savings import Savings, free_event
from services.summarizer.domain.values import Answer, Caller, Money, Prompt, ReusedPart, Sentence, Stage

MOST_CANDIDATES = 8
"""Texts that one is compared with: those that share most of its bands."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What is kept of a text whose answer was paid for: `key` is the answer's."""

    key: bytes
    drawn: Drawn
    marks: Marks
    first_page: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text that may be like another one, its answer, and the document that this was bought for, with the generation
    of that document's results."""

    answer: Answer
    document: str
    generation: int
    sketch: bytes
    marks: Marks
    first_page: int


class SimilarBook(Protocol):
    """Traces, each beside the answer that was paid for: with that it goes. Errors: Unavailable, DeadlineExceeded."""

    async def find(self, tenant: str, bands: Sequence[bytes], limit: int) -> tuple[Candidate, ...]:
        """At most `limit` texts of this tenant that have one of the bands, those with most of them first."""
        ...

    async def keep(self, tenant: str, traces: Sequence[Trace]) -> None:
        """Keeps those whose answers are there. One that is there already stays."""
        ...


@dataclass(slots=True)
class Looked:
    """What was found: an answer for each key that has one, and where it is from. `texts` are for `remember`."""

    answers: dict[bytes, Answer] = field(default_factory=dict)
    parts: list[ReusedPart] = field(default_factory=list)
    texts: dict[bytes, tuple[Text, Drawn, int]] = field(default_factory=dict)


class Similar:
    """Looks for answers to near-identical texts, and remembers texts whose answers were bought. With `remembers` False
    it only looks: for what is done in thought."""

    def __init__(self, book: SimilarBook, *, remembers: bool = True) -> None:
        self._book = book
        self._remembers = remembers

    async def look(self, caller: Caller, model: Model, prompts: Mapping[bytes, Prompt], missing: set[bytes]) -> Looked:
        """Answers to those prompts of `missing` for which there are some. Raises what SimilarBook.find raises."""
        looked = Looked()
        for key, prompt in prompts.items():
            chunk = prompt.chunk
            if chunk is None or not (key in missing or self._remembers):
                continue
            text, drawn = await asyncio.to_thread(_drawn, prompt, model)
            if drawn is None:
                continue
            looked.texts[key] = text, drawn, chunk.pages[0]
            if key not in missing:
                continue
            candidates = await self._book.find(caller.tenant, drawn.bands, MOST_CANDIDATES)
            found = await asyncio.to_thread(_first_that_fits, text, drawn, candidates) if candidates else None
            if found is not None:
                looked.answers[key] = moved(found.answer, chunk.pages[0] - found.first_page)
                looked.parts.append(
                    ReusedPart(found.document, chunk.pages[0], chunk.pages[-1], found.generation, found.answer.tokens)
                )
        return looked

    async def remember(self, caller: Caller, looked: Looked, answers: Mapping[bytes, Answer]) -> None:
        """Keeps a trace of each text whose answer is its own."""
        if not self._remembers:
            return
        traces = [
            Trace(key, drawn, await asyncio.to_thread(text.marks, answers[key]), first_page)
            for key, (text, drawn, first_page) in looked.texts.items()
            if key in answers and key not in looked.answers
        ]
        if traces:
            # Without it the next one who asks for the like pays for it: no reason to fail what was paid for.
            with contextlib.suppress(PagemeshError):
                await self._book.keep(caller.tenant, traces)


class ReuseSavings:
    """Tells the ledger what reused answers would have cost."""

    def __init__(
        self, *, prices: Prices, savings: Savings, new_id: Callable[[], str], now_s: Callable[[], float]
    ) -> None:
        self._prices = prices
        self._savings = savings
        self._new_id = new_id
        self._now_s = now_s

    async def tell(self, caller: Caller, document: str, model: str, parts: Sequence[ReusedPart]) -> None:
        """One event for the parts of one answer, in the present call of the caller. It never fails."""
        try:
            price = await self._prices.of(model)
        except PagemeshError:
            # Nobody can say how much it was; that something is missing is counted.
            self._savings.lose()
            return
        saved = Money(price.currency, sum(price.of(part.tokens).micros for part in parts))
        event = free_event(
            event_id=self._new_id(),
            model=model,
            document=document,
            caller=caller,
            now_s=self._now_s(),
            source="similar",
            saved=saved,
        )
        self._savings.add(caller, event)


def marked(sentence: Sentence, parts: Sequence[ReusedPart], *, all_from: str) -> Sentence:
    """The sentence with the document that it is from: `all_from` where the whole answer is, else that of a reused part
    one of whose pages it cites."""
    if all_from:
        return replace(sentence, reused_from=all_from)
    for citation in sentence.citations:
        for part in parts:
            if part.first_page <= citation.page <= part.last_page:
                return replace(sentence, reused_from=part.document)
    return sentence


def is_asked_about(model: Model, prompt: Prompt) -> bool:
    """Whether answers to it may be reused: those about a chunk, of a model that costs something."""
    return prompt.stage is Stage.MAP and model.abilities.bills_unanswered


def _drawn(prompt: Prompt, model: Model) -> tuple[Text, Drawn | None]:
    assert prompt.chunk is not None
    text = Text(prompt.chunk)
    return text, text.draw(question_key(prompt, model=model.name, provider_version=model.provider.version))


def _first_that_fits(text: Text, drawn: Drawn, candidates: Sequence[Candidate]) -> Candidate | None:
    """The most alike of those whose answer may be said of the text."""
    alike = [(likeness(drawn.sketch, found.sketch), found) for found in candidates]
    for share, found in sorted(alike, key=lambda pair: -pair[0]):
        if share < LEAST_ALIKE:
            return None
        if text.may_say(found.answer, found.marks):
            return found
    return None
