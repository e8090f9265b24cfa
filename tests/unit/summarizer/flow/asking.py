"""The flow of a question in memory, beside that of a summary."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory_questions import MemoryQuestions
from services.summarizer.domain.answer_values import AskEvent, CitedAnswer
from services.summarizer.domain.ask import AnswerMaker, Ask, AskFlights, StreamAsk
from services.summarizer.domain.passages import PassageFinder
from services.summarizer.domain.ports_questions import Filters
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.questions import Question
from services.summarizer.domain.single_flight import SingleFlight
from services.summarizer.domain.values import Caller
from tests.unit.summarizer.flow.parts import ALICE, Flow, options

FIRST, SECOND, THIRD = (f"documents/{digit * 32}" for digit in "abc")


def question(text: str, *documents: str, max_passages: int = 8) -> Question:
    return Question(text, Filters(documents=tuple(sorted(documents))), max_passages)


@dataclass
class AskFlow:
    """What answers questions, over the ports of a Flow."""

    flow: Flow = field(default_factory=Flow)
    finder: PassageFinder | None = None
    """Another one than that over the pages in memory."""

    def __post_init__(self) -> None:
        self.finds = MemoryQuestions(self.flow.pages)
        self.flights: AskFlights = SingleFlight(joined=lambda: self.flow.joins.append(None))

    def stream(self) -> StreamAsk:
        flow = self.flow
        return StreamAsk(
            models=flow.models(),
            finder=self.finder or PassageFinder(search=self.finds, reader=self.finds),
            pages=flow.pages,
            results=flow.store,
            maker=AnswerMaker(results=flow.store, paid=flow.paid(), act_as=act_as),
            flights=self.flights,
            savings=flow.savings(),
            tails=flow.tails,
            act_as=act_as,
            new_id=lambda: str(uuid.uuid4()),
            now_s=flow.clock,
            failed_over=lambda asked, instead, why: flow.failovers.append((asked.name, instead.name, why)),
        )

    async def ask(
        self,
        asked: Question,
        caller: Caller = ALICE,
        *,
        fallbacks: Sequence[str] = (),
        purse: Purse | None = None,
        **wanted: Any,
    ) -> CitedAnswer:
        with act_as(caller):
            return await Ask(self.stream())(caller, asked, options(**wanted), fallbacks=fallbacks, purse=purse)

    async def events(self, asked: Question, caller: Caller = ALICE) -> list[AskEvent]:
        with act_as(caller):
            return [event async for event in self.stream()(caller, asked, options())]
