"""Jobs between the contract's messages and the domain's values."""

from datetime import UTC, datetime
from typing import Literal

from google.protobuf import duration_pb2, json_format, timestamp_pb2
from google.rpc import status_pb2

from pagemesh.summarizer.v1 import answer_pb2, fields_pb2, job_pb2, job_work_pb2, summary_pb2
from pagemesh.summarizer.v1 import job_batches_pb2 as batches_pb2
from pagemesh.summarizer.v1 import job_queues_pb2 as queues_pb2
from pagemesh.summarizer.v1 import job_service_pb2 as service_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as summarizer_pb2
from services.runtime import errors, status
from services.summarizer.api.fields_mapping import from_extraction, to_range, to_schema
from services.summarizer.api.mapping import from_money, from_summary, to_options
from services.summarizer.api.personal_mapping import from_kinds, to_kinds
from services.summarizer.api.questions import from_answer
from services.summarizer.domain.answer_values import CitedAnswer
from services.summarizer.domain.events import Progress
from services.summarizer.domain.fields_values import Extraction
from services.summarizer.domain.job_batches import BatchSelection
from services.summarizer.domain.job_desk import Silence, invalid
from services.summarizer.domain.job_limits import TenantQueue
from services.summarizer.domain.jobs import (
    AskWork,
    Batch,
    EventKind,
    Extracted,
    ExtractWork,
    Fault,
    FieldsWork,
    Job,
    JobEvent,
    JobState,
    Order,
    Priority,
    Result,
    SummarizeWork,
    Work,
)
from services.summarizer.domain.json_schema import canonical
from services.summarizer.domain.purse import CURRENCY
from services.summarizer.domain.questions import DEFAULT_PASSAGES
from services.summarizer.domain.values import Caller, Length, Money, Options, Style

_STATES = {state: job_pb2.JobState.Value(f"JOB_STATE_{state.value}") for state in JobState}
_KINDS = {kind: job_pb2.JobEventKind.Value(f"JOB_EVENT_KIND_{kind.value}") for kind in EventKind}
_PRIORITIES = {
    job_pb2.JOB_PRIORITY_UNSPECIFIED: Priority.NORMAL,
    job_pb2.JOB_PRIORITY_URGENT: Priority.URGENT,
    job_pb2.JOB_PRIORITY_NORMAL: Priority.NORMAL,
    job_pb2.JOB_PRIORITY_BATCH: Priority.BATCH,
}
_FROM_PRIORITY = {priority: job_pb2.JobPriority.Value(f"JOB_PRIORITY_{priority.name}") for priority in Priority}
_LENGTHS = {length: summary_pb2.SummaryLength.Value(f"SUMMARY_LENGTH_{length.name}") for length in Length}
_STYLES = {style: summary_pb2.SummaryStyle.Value(f"SUMMARY_STYLE_{style.name}") for style in Style}


def to_order(
    caller: Caller,
    request: service_pb2.CreateJobRequest | service_pb2.BatchCreateJobsRequest,
    documents: tuple[str, ...],
) -> Order:
    """What the caller asks for."""
    try:
        when = request.schedule_time.ToDatetime(tzinfo=UTC) if request.HasField("schedule_time") else None
    except (ValueError, OverflowError) as exc:
        raise invalid("schedule_time", "must be a time of the years 1 to 9999") from exc
    return Order(
        caller=caller,
        documents=documents,
        work=to_work(request.work),
        priority=_PRIORITIES[request.priority],
        max_attempts=request.max_attempts,
        schedule_time=when,
        request_id=request.request_id,
        max_cost=to_bound(request),
    )


def to_bound(
    request: service_pb2.CreateJobRequest | service_pb2.BatchCreateJobsRequest | service_pb2.RetryJobRequest,
) -> Money | None:
    """What a job may spend, where that is bounded."""
    return Money(request.max_cost.currency, request.max_cost.micros) if request.HasField("max_cost") else None


def to_state(state: "job_pb2.JobState.ValueType") -> JobState | None:
    """The state that is asked for; None for all."""
    return next((known for known, value in _STATES.items() if value == state), None)


def from_job(job: Job, *, listed: bool = False) -> job_pb2.Job:
    """The job; one of a list is without what makes it large."""
    message = job_pb2.Job(
        name=job.name,
        document=job.document,
        work=_from_work(job.work, listed=listed),
        priority=_FROM_PRIORITY[job.priority],
        state=_STATES[job.state],
        batch=f"jobBatches/{job.batch}" if job.batch else "",
        actor=job.actor,
        progress=_from_progress(job.progress),
        attempts=job.attempts,
        max_attempts=job.max_attempts,
        error=_from_fault(job.fault),
        last_sequence=job.last_sequence,
        create_time=_from_time(job.create_time),
        schedule_time=_from_time(job.schedule_time),
        start_time=_from_time(job.start_time),
        end_time=_from_time(job.end_time),
        expire_time=_from_time(job.expire_time),
        max_cost=None if job.max_cost is None else from_money(job.max_cost),
        spent=from_money(Money(CURRENCY, job.spent_micros)),
    )
    if job.result is not None:
        message.result.CopyFrom(_from_result(job.result))
    return message


def from_batch(batch: Batch) -> job_pb2.JobBatch:
    """The batch."""
    return job_pb2.JobBatch(
        name=f"jobBatches/{batch.batch_id}",
        counts=_from_counts(batch),
        last_sequence=batch.last_sequence,
        create_time=_from_time(batch.create_time),
        spent=from_money(Money(CURRENCY, batch.spent_micros)),
    )


def from_queue(queue: TenantQueue) -> queues_pb2.TenantQueue:
    """The queue of one tenant."""
    age = duration_pb2.Duration()
    age.FromNanoseconds(max(0, int(queue.oldest_age_s * 1_000_000_000)))
    return queues_pb2.TenantQueue(
        tenant=f"tenants/{queue.tenant}",
        queued=queue.queued,
        due=queue.due,
        running=queue.running,
        oldest_age=age,
        max_running=queue.most_running,
    )


def to_batch_selection(request: batches_pb2.ListBatchesRequest) -> BatchSelection:
    """Which batches are meant. Raises InvalidArgument where a time is none."""
    return BatchSelection(request.open_only, _to_time(request, "start_time"), _to_time(request, "end_time"))


def _to_time(request: batches_pb2.ListBatchesRequest, field: Literal["start_time", "end_time"]) -> datetime | None:
    try:
        return getattr(request, field).ToDatetime(tzinfo=UTC) if request.HasField(field) else None
    except (ValueError, OverflowError) as exc:
        raise invalid(field, "must be a time of the years 1 to 9999") from exc


def from_watched(item: JobEvent | Silence | Batch) -> service_pb2.WatchJobResponse:
    """One message of a job's watch."""
    if isinstance(item, JobEvent):
        return service_pb2.WatchJobResponse(event=_from_event(item, item.sequence))
    known = item.last_sequence
    return service_pb2.WatchJobResponse(heartbeat=service_pb2.Heartbeat(last_sequence=known))


def from_watched_batch(item: JobEvent | Silence | Batch) -> service_pb2.WatchBatchResponse:
    """One message of a batch's watch."""
    match item:
        case JobEvent():
            return service_pb2.WatchBatchResponse(event=_from_event(item, item.batch_sequence))
        case Batch():
            return service_pb2.WatchBatchResponse(counts=_from_counts(item))
        case Silence(known):
            return service_pb2.WatchBatchResponse(heartbeat=service_pb2.Heartbeat(last_sequence=known))


def _from_event(event: JobEvent, sequence: int) -> job_pb2.JobEvent:
    return job_pb2.JobEvent(
        sequence=sequence,
        job=f"jobs/{event.job_id}",
        kind=_KINDS[event.kind],
        state=_STATES[event.state],
        progress=_from_progress(event.progress),
        attempt=event.attempt,
        error=_from_fault(event.fault),
        create_time=_from_time(event.create_time),
    )


def to_work(message: job_pb2.JobWork) -> Work:
    """What is to be done with each document. Raises InvalidArgument SCHEMA_INVALID."""
    match message.WhichOneof("kind"):
        case "extract":
            return ExtractWork()
        case "extract_fields":
            return to_fields_work(message.extract_fields, at="work.extract_fields.")
        case "ask":
            return to_ask_work(message.ask)
    return to_summarize_work(message.summarize)


def to_summarize_work(message: summarizer_pb2.SummaryOptions) -> SummarizeWork:
    """A summary."""
    return SummarizeWork(to_options(message), tuple(message.fallback_models))


def to_ask_work(message: job_work_pb2.AskWork) -> AskWork:
    """An answer."""
    options = message.options
    most = options.max_passages or DEFAULT_PASSAGES
    kinds = to_kinds(options.anonymise)
    return AskWork(message.question, most, options.language, options.model, tuple(options.fallback_models), kinds)


def to_fields_work(message: job_work_pb2.ExtractFieldsWork, *, at: str) -> FieldsWork:
    """Fields; `at` is where the request says which. Raises InvalidArgument SCHEMA_INVALID."""
    options = message.options
    schema = ""
    if message.HasField("json_schema"):
        schema = canonical(to_schema(message.json_schema, field=f"{at}json_schema"))
    kinds = to_kinds(options.anonymise)
    fallbacks = tuple(options.fallback_models)
    return FieldsWork(schema, message.schema, options.model, fallbacks, options.ocr_model, kinds, to_range(message))


def _from_work(work: Work, *, listed: bool) -> job_pb2.JobWork:
    match work:
        case SummarizeWork(summary, fallbacks):
            return job_pb2.JobWork(summarize=_from_options(summary, fallbacks))
        case ExtractWork():
            return job_pb2.JobWork(extract=job_pb2.ExtractPagesWork())
        case FieldsWork(schema, stored, model, fallbacks, ocr_model, kinds, pages):
            looked = fields_pb2.FieldOptions(
                model=model, fallback_models=fallbacks, ocr_model=ocr_model, anonymise=from_kinds(kinds)
            )
            fields = job_work_pb2.ExtractFieldsWork(options=looked, first_page=pages.first, last_page=pages.last)
            if stored:
                fields.schema = stored
            elif not listed:
                json_format.Parse(schema, fields.json_schema)
            return job_pb2.JobWork(extract_fields=fields)
        case AskWork(question, most, language, model, fallbacks, kinds):
            asked = answer_pb2.AnswerOptions(
                language=language,
                model=model,
                fallback_models=fallbacks,
                max_passages=most,
                anonymise=from_kinds(kinds),
            )
            return job_pb2.JobWork(ask=job_work_pb2.AskWork(question=question, options=asked))


def _from_result(result: Result) -> job_pb2.JobResult:
    match result:
        case Extracted():
            return job_pb2.JobResult(extract=_from_extracted(result))
        case Extraction():
            return job_pb2.JobResult(extraction=from_extraction(result))
        case CitedAnswer():
            return job_pb2.JobResult(answer=from_answer(result))
        case _:
            return job_pb2.JobResult(summary=from_summary(result))


def _from_options(options: Options, fallbacks: tuple[str, ...]) -> summarizer_pb2.SummaryOptions:
    return summarizer_pb2.SummaryOptions(
        length=_LENGTHS[options.length],
        style=_STYLES[options.style],
        language=options.language,
        focus=options.focus,
        model=options.model,
        fallback_models=fallbacks,
        ocr_model=options.ocr_model,
        audience=options.audience,
        anonymise=from_kinds(options.anonymise),
    )


def _from_extracted(found: Extracted) -> job_pb2.ExtractedPages:
    return job_pb2.ExtractedPages(
        page_count=found.page_count,
        pages_read=found.pages_read,
        failed_pages=found.failed_pages,
        words=found.words,
    )


def _from_counts(batch: Batch) -> job_pb2.JobCounts:
    counts = {state.value.lower(): count for state, count in batch.counts.items()}
    return job_pb2.JobCounts(total=sum(counts.values()), **counts)


def _from_progress(progress: Progress) -> summarizer_pb2.SummaryProgress:
    return summarizer_pb2.SummaryProgress(
        pages_read=progress.pages_read,
        page_count=progress.page_count,
        chunks_done=progress.chunks_done,
        chunk_count=progress.chunk_count,
    )


def _from_fault(fault: Fault | None) -> status_pb2.Status | None:
    """As the call would have failed, had somebody waited for it."""
    if fault is None:
        return None
    kind = getattr(errors, fault.kind, errors.InternalError)
    return status.to_status(kind(fault.reason, fault.message))


def _from_time(time: datetime | None) -> timestamp_pb2.Timestamp | None:
    if time is None:
        return None
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(time)
    return message
