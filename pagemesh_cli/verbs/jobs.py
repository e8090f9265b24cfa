"""`pagemesh jobs`: work that goes on when nobody waits."""

import enum
import uuid
from collections.abc import Callable, Iterator
from typing import Annotated, TypeVar

import typer

from pagemesh.common.v1 import money_pb2
from pagemesh.summarizer.v1 import job_pb2, job_service_pb2
from pagemesh_cli.client import Client
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import ExitCode, Failure, from_status
from pagemesh_cli.job_progress import JobProgress, progress_of
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.anonymising import Anonymise
from pagemesh_cli.verbs.fields import print_extraction
from pagemesh_cli.verbs.job_batches import cancel_batch, list_batches, retry_batch
from pagemesh_cli.verbs.job_documents import stored
from pagemesh_cli.verbs.job_estimates import estimate_jobs
from pagemesh_cli.verbs.job_queues import list_queues
from pagemesh_cli.verbs.listing import Limit, named, print_list, read_list, time_cell
from pagemesh_cli.verbs.looking import looking
from pagemesh_cli.verbs.money import amount, money
from pagemesh_cli.verbs.options import Access, Json, connected, connecting
from pagemesh_cli.verbs.questions import print_statements
from pagemesh_cli.verbs.ranges import PagesOption
from pagemesh_cli.verbs.summaries import Length, OcrModelOption, ReuseSimilar, Style, print_sentences, summary_options

jobs = typer.Typer(no_args_is_help=True, help="Hand in work, watch it, and see what became of it.")
jobs.command("batches")(list_batches)
jobs.command("queues")(list_queues)
_COME_AGAIN = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "NO_ROUTE", "UPSTREAM_UNAVAILABLE", "CUT_OFF"})
_MOST_BREAKS = 20
"""How often a watch is begun anew without having heard anything in between."""

JobMaxCost = Annotated[
    money_pb2.Money | None,
    typer.Option(
        "--max-cost", parser=amount, metavar="USD", help="Each job spends no more than this, over all of its attempts."
    ),
]
Name = Annotated[str, typer.Argument(help="The job, as jobs/{id} or {id}.")]
Answer = TypeVar("Answer", job_service_pb2.WatchJobResponse, job_service_pb2.WatchBatchResponse)


class Priority(enum.StrEnum):
    """JobPriority of the contract."""

    URGENT = "urgent"
    NORMAL = "normal"
    BATCH = "batch"


class Work(enum.StrEnum):
    """What to do with each document."""

    SUMMARIZE = "summarize"
    EXTRACT = "extract"


class State(enum.StrEnum):
    """JobState of the contract."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@jobs.command()
@connecting
def submit(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, or documents as documents/{id}.")],
    *,
    work: Annotated[Work, typer.Option(help="What to do with each.")] = Work.SUMMARIZE,
    priority: Annotated[Priority, typer.Option(help="When it goes.")] = Priority.NORMAL,
    length: Annotated[Length, typer.Option(help="Of summaries.")] = Length.MEDIUM,
    style: Annotated[Style, typer.Option(help="Of summaries.")] = Style.PARAGRAPH,
    model: Annotated[str, typer.Option(help="`provider/model`; the stack's default otherwise.")] = "",
    ocr_model: OcrModelOption = "",
    schema: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="Find what it describes: a file of JSON Schema, or `schemas/{id}`.")
    ] = "",
    ask: Annotated[str, typer.Option(metavar="QUESTION", help="Answer this question from each.")] = "",
    pages: PagesOption = "",
    anonymise: Anonymise = None,
    reuse_similar: ReuseSimilar = False,
    attempts: Annotated[int, typer.Option(min=0, max=20, help="Tries of each; 0: the stack's number.")] = 0,
    max_cost: JobMaxCost = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Queue nothing: tell what it would cost, document by document.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until all have ended.")] = False,
    as_json: Json = False,
    access: Access,
) -> None:
    """Store files and queue a job for each; prints the batch."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        if estimate and watch:
            raise Failure(
                "--estimate queues nothing that could be watched.",
                ExitCode.USAGE,
                "BAD_ARGUMENTS",
                advice="Say --estimate to learn what it would cost, and --watch when you hand it in.",
            )
        if schema or ask or pages:
            kind = looking(schema, ask, model, ocr_model, anonymise or (), pages=pages)
        elif work is Work.SUMMARIZE:
            options = summary_options(
                length, style, "", "", model, ocr_model=ocr_model, anonymise=anonymise, reuse_similar=reuse_similar
            )
            kind = job_pb2.JobWork(summarize=options)
        else:
            kind = job_pb2.JobWork(extract=job_pb2.ExtractPagesWork())
        titles = stored(client, output, paths)
        if estimate:
            estimate_jobs(client, output, kind, titles)
            return
        request = job_service_pb2.BatchCreateJobsRequest(
            documents=titles,
            work=kind,
            priority=job_pb2.JobPriority.Value(f"JOB_PRIORITY_{priority.name}"),
            max_attempts=attempts,
            max_cost=max_cost,
            request_id=str(uuid.uuid4()),
        )
        # With its id the request may be sent again.
        batch = client.unary(client.jobs.BatchCreateJobs, request).batch
        if as_json:
            output.result(message_json(batch))
        else:
            output.write(f"{batch.name}\n")
            output.note(
                f"{counted(batch.counts.total, 'job')}; `pagemesh jobs watch {batch.name}` shows how far they are",
                "dim",
            )
        if watch:
            _watch_batch(client, output, batch.name, titles)


@jobs.command("list")
@connecting
def list_(
    *,
    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
    batch: Annotated[str, typer.Option(help="Only those of this batch.")] = "",
    limit: Limit = 50,
    as_json: Json = False,
    access: Access,
) -> None:
    """List jobs, newest first."""
    _list(Output(as_json=as_json), access, state, batch, limit)


@jobs.command()
@connecting
def dead(
    *,
    batch: Annotated[str, typer.Option(help="Only those of this batch.")] = "",
    limit: Limit = 50,
    as_json: Json = False,
    access: Access,
) -> None:
    """List jobs that were given up, and why."""
    _list(Output(as_json=as_json), access, State.FAILED, batch, limit)


@jobs.command()
@connecting
def show(job: Name, *, as_json: Json = False, access: Access) -> None:
    """Show a job, its events and what it made."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = job_service_pb2.GetJobRequest(name=named("jobs", job))
        found = client.unary(client.jobs.GetJob, request).job
        if as_json:
            output.result(message_json(found))
            return
        rows = [("job", found.name), ("document", found.document), ("state", _state(found.state))]
        rows += [("attempts", f"{found.attempts} of {found.max_attempts}"), ("created", time_cell(found.create_time))]
        rows += [("ended", time_cell(found.end_time)), ("kept until", time_cell(found.expire_time))]
        bound = f" of {money(found.max_cost)} at most" if found.HasField("max_cost") else ""
        rows.append(("spent", money(found.spent) + bound))
        if found.HasField("error"):
            rows.append(("error", found.error.message))
        print_list(output, ("what", ""), rows, more=False, limit=len(rows))
        if found.result.HasField("summary"):
            print_sentences(output, found.result.summary, Style.PARAGRAPH)
        elif found.result.HasField("extraction"):
            print_extraction(output, found.result.extraction)
        elif found.result.HasField("answer"):
            print_statements(output, found.result.answer)
        elif found.result.HasField("extract"):
            read = found.result.extract
            output.write(f"{read.pages_read} of {counted(read.page_count, 'page')}, {counted(read.words, 'word')}\n")


@jobs.command()
@connecting
def watch(
    name: Annotated[str, typer.Argument(help="jobs/{id} or jobBatches/{id}.")],
    *,
    after: Annotated[int, typer.Option(min=0, help="Only events after this sequence number.")] = 0,
    as_json: Json = False,
    access: Access,
) -> None:
    """Follow a job or a batch until it has ended; a connection that breaks is made again."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        if name.startswith("jobBatches/"):
            _watch_batch(client, output, name, {}, after)
        else:
            _watch_job(client, output, named("jobs", name), after)


@jobs.command()
@connecting
def cancel(job: Name, *, as_json: Json = False, access: Access) -> None:
    """Cancel a job, or all of a batch that have not ended. What has ended stays as it is."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        if job.startswith("jobBatches/"):
            cancel_batch(client, output, job)
            return
        request = job_service_pb2.CancelJobRequest(name=named("jobs", job))
        _print_state(output, client.unary(client.jobs.CancelJob, request).job)


@jobs.command()
@connecting
def retry(
    job: Annotated[str, typer.Argument(help="The job, or a batch for its failed ones; nothing with --dead.")] = "",
    *,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Of a batch, those that were cancelled too.")] = False,
    all_dead: Annotated[bool, typer.Option("--dead", help="All that were given up, newest first.")] = False,
    batch: Annotated[str, typer.Option(help="With --dead: only those of this batch.")] = "",
    limit: Limit = 1000,
    max_cost: JobMaxCost = None,
    as_json: Json = False,
    access: Access,
) -> None:
    """Queue jobs once more that were given up or cancelled. What was paid for is not paid again."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        if bool(job) == all_dead:
            raise Failure("Name a job, or say --dead.", ExitCode.USAGE, "BAD_ARGUMENTS")
        if job.startswith("jobBatches/"):
            if max_cost is not None:
                raise Failure(
                    "The jobs of a batch keep their bounds; name one of them.", ExitCode.USAGE, "BAD_ARGUMENTS"
                )
            retry_batch(client, output, job, cancelled=cancelled)
            return
        names = [named("jobs", job)] if job else [one.name for one in _read(client, State.FAILED, batch, limit)[0]]
        for name in names:
            request = job_service_pb2.RetryJobRequest(name=name, max_cost=max_cost)
            _print_state(output, client.unary(client.jobs.RetryJob, request).job)


def _read(client: Client, state: State | None, batch: str, limit: int) -> tuple[list[job_pb2.Job], bool]:
    wanted = job_pb2.JobState.Value(f"JOB_STATE_{state.name}") if state else job_pb2.JOB_STATE_UNSPECIFIED
    of_batch = named("jobBatches", batch) if batch else ""

    def ask(size: int, token: str) -> job_service_pb2.ListJobsResponse:
        request = job_service_pb2.ListJobsRequest(page_size=size, page_token=token, state=wanted, batch=of_batch)
        return client.unary(client.jobs.ListJobs, request)

    return read_list(ask, lambda page: page.jobs, limit)


def _list(output: Output, access: Access, state: State | None, batch: str, limit: int) -> None:
    with connected(output, access) as client:
        found, more = _read(client, state, batch, limit)
        if output.as_json:
            for job in found:
                output.result(message_json(job))
            return
        rows = [
            (job.name, _state(job.state), job.document, str(job.attempts), time_cell(job.create_time), _why(job.error))
            for job in found
        ]
        columns = ("job", "state", "document", "attempts", "created", "error")
        print_list(output, columns, rows, more=more, limit=limit)


def _why(error: object) -> str:
    return str(getattr(error, "message", ""))


def _state(state: "job_pb2.JobState.ValueType") -> str:
    return job_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower()


def _print_state(output: Output, job: job_pb2.Job) -> None:
    if output.as_json:
        output.result(message_json(job))
    else:
        output.write(f"{job.name} {_state(job.state)}\n")


def _watch_job(client: Client, output: Output, name: str, after: int) -> None:
    state, error = job_pb2.JOB_STATE_UNSPECIFIED, ""

    def begin(known: int) -> Iterator[job_service_pb2.WatchJobResponse]:
        request = job_service_pb2.WatchJobRequest(name=name, after_sequence=known)
        return client.stream(client.jobs.WatchJob, request)

    with output.progress(name, printing=True) as meter:
        for answer in _through_breaks(client, begin, after):
            if not answer.HasField("event"):
                continue
            event = answer.event
            state, error = event.state, event.error.message
            if output.as_json:
                output.result(message_json(event))
            elif event.kind == job_pb2.JOB_EVENT_KIND_PROGRESS:
                done, total, _ = progress_of(event)
                meter.at(done, total)
            else:
                kind = job_pb2.JobEventKind.Name(event.kind).removeprefix("JOB_EVENT_KIND_").lower()
                output.write(f"{event.sequence:>6} {kind:<12} {_state(state):<10} {error}\n")
    if state in (job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED):
        raise Failure(error or "The job was cancelled.", ExitCode.FAILED, "JOB_NOT_DONE")


def _watch_batch(client: Client, output: Output, name: str, titles: dict[str, str], after: int = 0) -> None:
    counts = job_pb2.JobCounts()

    def begin(known: int) -> Iterator[job_service_pb2.WatchBatchResponse]:
        request = job_service_pb2.WatchBatchRequest(name=name, after_sequence=known)
        return client.stream(client.jobs.WatchBatch, request)

    with JobProgress(client, output, titles, len(titles)) as progress:
        for answer in _through_breaks(client, begin, after):
            if output.as_json and not answer.HasField("heartbeat"):
                output.result(message_json(answer))
            if answer.HasField("counts"):
                counts = answer.counts
                progress.counts(counts)
            elif answer.HasField("event"):
                progress.event(answer.event)
    output.note(f"{counts.succeeded} of {counted(counts.total, 'job')} succeeded", "dim")
    if counts.succeeded < counts.total:
        raise Failure(
            f"{counted(counts.failed, 'job')} failed and {counted(counts.cancelled, 'was', 'were')} cancelled.",
            ExitCode.INCOMPLETE if counts.succeeded else ExitCode.FAILED,
            "JOBS_FAILED",
            advice=f"`pagemesh jobs dead --batch {name}` says why.",
        )


def _through_breaks(client: Client, begin: Callable[[int], Iterator[Answer]], after: int) -> Iterator[Answer]:
    """The answers of a watch. Where the connection breaks, or its time is over, it goes on after the last event."""
    known, breaks = after, 0
    while True:
        try:
            for answer in begin(known):
                if answer.HasField("error"):
                    raise from_status(answer.error, request_id=client.request_id)
                if answer.HasField("event"):
                    known = answer.event.sequence
                breaks = 0
                yield answer
        except Failure as failure:
            breaks += 1
            if breaks > _MOST_BREAKS or not _passes(failure):
                raise
        else:
            return


def _passes(failure: Failure) -> bool:
    return failure.reason in _COME_AGAIN or failure.exit_code in (ExitCode.UNREACHABLE, ExitCode.TIMED_OUT)
