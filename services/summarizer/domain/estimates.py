"""Estimates of work of any kind: what a request for it, or a job, would use, cost and take."""

import json
from collections.abc import Sequence
from dataclasses import replace

from services.summarizer.domain.estimate import Estimate, EstimateSummary
from services.summarizer.domain.estimate_fields import EstimateFields
from services.summarizer.domain.estimate_question import EstimateQuestion
from services.summarizer.domain.extract_fields import Wanted
from services.summarizer.domain.job_scopes import check_scope
from services.summarizer.domain.jobs import AskWork, ExtractWork, FieldsWork, SummarizeWork, Work
from services.summarizer.domain.ports_questions import Filters, PageReader
from services.summarizer.domain.questions import Question
from services.summarizer.domain.values import Caller, Length, Options, Style


class Estimator:
    """Finds out without spending anything."""

    def __init__(
        self, *, summary: EstimateSummary, fields: EstimateFields, question: EstimateQuestion, reader: PageReader
    ) -> None:
        self._summary = summary
        self._fields = fields
        self._question = question
        self._reader = reader

    async def __call__(
        self, caller: Caller, documents: Sequence[str], work: Work, *, at: str, besides: str = ""
    ) -> Estimate:
        """The estimate under the name of the first document; several are for a question alone. `at` is where the
        request says the work, and `besides` what the caller needs besides its scope, for what is said to who lacks it.

        Raises PermissionDenied SCOPE_MISSING, and what the estimate of that kind of work raises.
        """
        check_scope(caller, work, besides=besides)
        document = documents[0]
        match work:
            case SummarizeWork(options):
                return await self._summary(caller, document, options, at=at)
            case ExtractWork():
                # Reading costs nothing, whoever asks.
                state = await self._reader.look(document)
                return Estimate(document, "", page_count=state.page_count or 0)
            case FieldsWork():
                return await self._fields(
                    caller,
                    document,
                    Wanted(stored=work.stored) if work.stored else Wanted(schema=json.loads(work.schema)),
                    model=work.model,
                    ocr_model=work.ocr_model,
                    anonymise=work.anonymise,
                    within=work.pages,
                    at=at,
                )
            case AskWork():
                question = Question(work.question, Filters(documents=tuple(sorted(set(documents)))), work.max_passages)
                # Of the options of summaries, language and model alone say something to answers.
                options = Options(Length.MEDIUM, Style.PARAGRAPH, work.language, "", work.model)
                found = await self._question(caller, question, replace(options, anonymise=work.anonymise), at=at)
                return replace(found, document=document)
