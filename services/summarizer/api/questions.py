"""Ask and StreamAsk: requests in, use case, answers out."""

import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import aclosing

from google.rpc import status_pb2
from prometheus_client import Counter, Gauge, Histogram

from pagemesh.summarizer.v1 import answer_pb2 as pb
from services.runtime.errors import FieldViolation, InvalidArgument
from services.runtime.stream_errors import with_error_event
from services.summarizer.api.caller import current_caller, current_deadline
from services.summarizer.api.estimate_mapping import to_purse
from services.summarizer.api.mapping import from_box, from_consumption
from services.summarizer.api.personal_mapping import from_counts, to_kinds
from services.summarizer.domain.answer_values import (
    Answered,
    AskEvent,
    Cited,
    CitedAnswer,
    Looked,
    Statement,
    StatementReady,
)
from services.summarizer.domain.ask import Ask, StreamAsk
from services.summarizer.domain.events import TextDelta
from services.summarizer.domain.ports_questions import Filters, PageAt
from services.summarizer.domain.questions import DEFAULT_PASSAGES, Question
from services.summarizer.domain.values import Length, Options, Style

_ACTIVE = Gauge("pagemesh_summarizer_questions_active", "Questions that are being answered.")
_ANSWERS = Counter("pagemesh_summarizer_answers", "Answers to questions, by whether one was found.", ["outcome"])
_GROUNDED = Histogram(
    "pagemesh_summarizer_answer_grounded_share",
    "Share of the statements of an answer that are grounded.",
    buckets=(0, 0.25, 0.5, 0.75, 0.9, 0.99, 1),
)
_Request = pb.AskRequest | pb.StreamAskRequest


class Questions:
    """The part of the servicer that answers questions. Translates; decides nothing."""

    def __init__(self, stream: StreamAsk) -> None:
        self._stream = stream
        self._ask = Ask(stream)

    async def ask(self, request: pb.AskRequest) -> pb.AskResponse:
        """An answer."""
        with _ACTIVE.track_inprogress():
            answer = await self._ask(
                current_caller(),
                to_question(request),
                _options(request.options),
                fallbacks=request.options.fallback_models,
                purse=to_purse(request),
                deadline=current_deadline(),
            )
        _observe(answer)
        return pb.AskResponse(answer=from_answer(answer))

    async def stream(self, request: pb.StreamAskRequest) -> AsyncGenerator[pb.StreamAskResponse, None]:
        """An answer as it comes into being."""
        # Closed here, so that a caller who hangs up ends the work at once; it closes the stream that it passes on.
        async with aclosing(with_error_event(self._events(request), make=_error_event)) as responses:
            async for response in responses:
                yield response

    async def _events(self, request: pb.StreamAskRequest) -> AsyncGenerator[pb.StreamAskResponse, None]:
        stream = self._stream(
            current_caller(),
            to_question(request),
            _options(request.options),
            fallbacks=request.options.fallback_models,
            purse=to_purse(request),
            deadline=current_deadline(),
        )
        with _ACTIVE.track_inprogress():
            async with aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, Answered):
                        _observe(event.answer)
                    yield from_event(event)


def to_question(request: _Request) -> Question:
    """What is asked, and of what."""
    filters = Filters(
        documents=tuple(sorted(set(request.documents))),
        languages=tuple(sorted(set(request.languages))),
        stored_after=_time(request, "stored_after"),
        stored_before=_time(request, "stored_before"),
    )
    return Question(request.question, filters, request.options.max_passages or DEFAULT_PASSAGES)


def from_event(event: AskEvent) -> pb.StreamAskResponse:
    """One event of a stream."""
    match event:
        case Looked():
            progress = pb.AnswerProgress(pages_read=event.pages_read, passages=event.passages)
            return pb.StreamAskResponse(progress=progress)
        case TextDelta():
            return pb.StreamAskResponse(text_delta=event.text)
        case StatementReady():
            return pb.StreamAskResponse(statement=_statement(event.statement))
        case Answered():
            return pb.StreamAskResponse(answer=from_answer(event.answer))


def from_answer(answer: CitedAnswer) -> pb.Answer:
    """The whole answer."""
    return pb.Answer(
        found=answer.found,
        text=answer.text,
        statements=[_statement(statement) for statement in answer.statements],
        grounded_share=answer.grounded_share,
        passages=[_page(at) for at in answer.passages],
        model=answer.model,
        extractive=answer.extractive,
        cached=answer.cached,
        degraded_from=answer.degraded_from,
        failed_pages=[_page(at) for at in answer.failed_pages],
        consumption=from_consumption(answer.consumption),
        anonymised=from_counts(answer.anonymised),
    )


def _options(options: pb.AnswerOptions) -> Options:
    return Options(
        Length.MEDIUM, Style.PARAGRAPH, options.language, "", options.model, anonymise=to_kinds(options.anonymise)
    )


def _statement(statement: Statement) -> pb.AnswerStatement:
    cited = [_citation(citation) for citation in statement.citations]
    return pb.AnswerStatement(text=statement.text, citations=cited, grounded=statement.grounded)


def _citation(cited: Cited) -> pb.AnswerCitation:
    boxes = [from_box(box) for box in cited.boxes]
    return pb.AnswerCitation(document=cited.at.document, page=cited.at.number, quote=cited.quote, boxes=boxes)


def _page(at: PageAt) -> pb.PageReference:
    return pb.PageReference(document=at.document, page=at.number)


def _time(request: _Request, field: str) -> dt.datetime | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    try:
        value: dt.datetime = getattr(request, field).ToDatetime(tzinfo=dt.UTC)
    except (ValueError, OverflowError) as exc:
        message = f"{field}: must be a time between the years 1 and 9999"
        raise InvalidArgument("INVALID_FIELD", message, fields=[FieldViolation(field, message)]) from exc
    return value


def _error_event(status: status_pb2.Status) -> pb.StreamAskResponse:
    return pb.StreamAskResponse(error=status)


def _observe(answer: CitedAnswer) -> None:
    _ANSWERS.labels("found" if answer.found else "not_found").inc()
    if answer.statements:
        _GROUNDED.observe(answer.grounded_share)
