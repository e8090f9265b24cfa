"""What a worker does for each kind of work."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from services.summarizer.domain.answer_values import Answered, AskEvent, Looked
from services.summarizer.domain.events import Event, Finished, Progress
from services.summarizer.domain.extract_fields import Wanted
from services.summarizer.domain.fields_values import Extraction
from services.summarizer.domain.job_ports import JobSpending
from services.summarizer.domain.job_purse import JobPurse
from services.summarizer.domain.job_scopes import SCOPES
from services.summarizer.domain.job_standing import Standing
from services.summarizer.domain.jobs import AskWork, Claim, Extracted, ExtractWork, FieldsWork, Result, SummarizeWork
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.personal_kinds import Kinds
from services.summarizer.domain.ports import ActAs, DocumentStart, PageFailed, PageSource
from services.summarizer.domain.ports_questions import Filters
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.questions import Question
from services.summarizer.domain.values import Caller, Length, Options, Style

Told = Callable[[Progress], None]
Doer = Callable[[Claim, Told], Awaitable[Result]]


class Stream(Protocol):
    """StreamSummarize."""

    def __call__(
        self,
        caller: Caller,
        document: str,
        options: Options,
        *,
        fallbacks: tuple[str, ...] = (),
        purse: Purse | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Events of the summary, Finished last."""
        ...


class Extracting(Protocol):
    """ExtractFields."""

    async def __call__(
        self,
        caller: Caller,
        document: str,
        wanted: Wanted,
        *,
        model: str = "",
        ocr_model: str = "",
        fallbacks: Sequence[str] = (),
        purse: Purse | None = None,
        anonymise: Kinds | None = None,
        within: PageRange = ALL_PAGES,
        deadline: float | None = None,
        told: Told | None = None,
    ) -> Extraction:
        """The fields; `told` hears of the progress."""
        ...


class Asking(Protocol):
    """StreamAsk."""

    def __call__(
        self,
        caller: Caller,
        question: Question,
        options: Options,
        *,
        fallbacks: Sequence[str] = (),
        purse: Purse | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[AskEvent, None]:
        """Events of the answer, Answered last."""
        ...


class JobWork:
    """Does the work of one claim. Raises what its use case raises."""

    def __init__(
        self,
        *,
        standing: Standing,
        stream: Stream,
        fields: Extracting,
        ask: Asking,
        pages: PageSource,
        spending: JobSpending,
        act_as: ActAs,
    ) -> None:
        self._standing = standing
        self._stream = stream
        self._fields = fields
        self._ask = ask
        self._pages = pages
        self._spending = spending
        self._act_as = act_as

    async def __call__(self, claim: Claim, told: Told) -> Result:
        """The result; `told` hears of the progress, as often as there is some. Before anything is done, whoever handed
        it in must still stand. Raises also what Standing raises."""
        with self._act_as(claim.caller):
            await self._standing.check(claim.caller, SCOPES[type(claim.work)])
        match claim.work:
            case SummarizeWork(options, fallbacks):
                return await self._summarize(claim, options, fallbacks, told)
            case ExtractWork():
                return await self._extract(claim, told)
            case FieldsWork():
                return await self._extract_fields(claim, claim.work, told)
            case AskWork():
                return await self._answer(claim, claim.work, told)

    def _purse(self, claim: Claim) -> JobPurse:
        return JobPurse(claim, self._spending)

    async def _summarize(self, claim: Claim, options: Options, fallbacks: tuple[str, ...], told: Told) -> Result:
        stream = self._stream(claim.caller, claim.document, options, fallbacks=fallbacks, purse=self._purse(claim))
        with self._act_as(claim.caller):
            async with aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, Progress):
                        told(event)
                    elif isinstance(event, Finished):
                        return event.summary
        raise AssertionError("a stream of events ended without its last one")

    async def _extract(self, claim: Claim, told: Told) -> Result:
        failed: list[int] = []
        page_count = pages_read = words = 0
        with self._act_as(claim.caller):
            async with aclosing(self._pages.pages(claim.document)) as items:
                async for item in items:
                    if isinstance(item, DocumentStart):
                        page_count = item.page_count
                    elif isinstance(item, PageFailed):
                        failed.append(item.number)
                    else:
                        pages_read += 1
                        words += len(item.words)
                    told(Progress(pages_read, page_count, 0, 0))
        return Extracted(page_count, pages_read, tuple(failed), words)

    async def _extract_fields(self, claim: Claim, work: FieldsWork, told: Told) -> Result:
        wanted = Wanted(stored=work.stored) if work.stored else Wanted(schema=json.loads(work.schema))
        with self._act_as(claim.caller):
            return await self._fields(
                claim.caller,
                claim.document,
                wanted,
                model=work.model,
                ocr_model=work.ocr_model,
                fallbacks=work.fallbacks,
                anonymise=work.anonymise,
                within=work.pages,
                purse=self._purse(claim),
                told=told,
            )

    async def _answer(self, claim: Claim, work: AskWork, told: Told) -> Result:
        question = Question(work.question, Filters(documents=(claim.document,)), work.max_passages)
        # Of the options of summaries, language and model alone say something to answers.
        options = Options(Length.MEDIUM, Style.PARAGRAPH, work.language, "", work.model, anonymise=work.anonymise)
        stream = self._ask(claim.caller, question, options, fallbacks=work.fallbacks, purse=self._purse(claim))
        with self._act_as(claim.caller):
            async with aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, Looked):
                        # The pages that were chosen are its one part; before, nobody knows how many will be read.
                        told(Progress(event.pages_read, event.pages_read, 0, min(event.passages, 1)))
                    elif isinstance(event, Answered):
                        return event.answer
        raise AssertionError("a stream of events ended without its last one")
