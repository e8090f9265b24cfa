"""What jobs on many documents would cost, for `pagemesh estimate` and `pagemesh jobs submit --estimate`."""

from collections.abc import Mapping

from pagemesh.common.v1 import money_pb2
from pagemesh.summarizer.v1 import estimate_pb2, job_estimates_pb2, job_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import ExitCode, Failure, from_status
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.money import money

AT_A_TIME = 10
"""Documents of one call: it has an answer within seconds where their pages are read, and in minutes where not."""
_TRIES = 3
_NO_TIME_LEFT = "NO_TIME_LEFT"


def estimate_jobs(client: Client, output: Output, work: job_pb2.JobWork, titles: Mapping[str, str]) -> None:
    """Tells what the work would cost on each document, under its title, and on all. Raises Failure INCOMPLETE where it
    cannot be told of some."""
    total = job_estimates_pb2.JobsTotal()
    waiting = list(titles)
    for start in range(0, len(waiting), AT_A_TIME):
        documents = waiting[start : start + AT_A_TIME]
        for job in _estimated(client, output, work, documents, f"{start} of {len(waiting)}"):
            _print(output, job, titles[job.document])
            _add(total, job)
    if output.as_json:
        output.result({"total": message_json(total), "requestId": client.request_id})
    else:
        _print_total(output, total)
    if total.error_count:
        raise Failure(
            f"{total.error_count} of {counted(len(waiting), 'document')} could not be estimated.",
            ExitCode.INCOMPLETE,
            "DOCUMENTS_FAILED",
            request_id=client.request_id,
        )


def _estimated(
    client: Client, output: Output, work: job_pb2.JobWork, documents: list[str], done: str
) -> list[job_estimates_pb2.JobEstimate]:
    """One estimate for each, in order. What there was no time for is asked for again: what was read of it is stored."""
    found: dict[str, job_estimates_pb2.JobEstimate] = {}
    missing = documents
    for _ in range(_TRIES):
        request = job_estimates_pb2.EstimateJobsRequest(documents=missing, work=work)
        with output.progress(f"reading, {done} done"):
            answer = client.unary(client.jobs.EstimateJobs, request, timeout_s=STREAM_TIMEOUT_S)
        found |= {job.document: job for job in answer.jobs}
        missing = [name for name in missing if _reason(found[name]) == _NO_TIME_LEFT]
        if not missing:
            break
    return [found[name] for name in documents]


def _reason(job: job_estimates_pb2.JobEstimate) -> str:
    return from_status(job.error, request_id="").reason if job.HasField("error") else ""


def _add(total: job_estimates_pb2.JobsTotal, job: job_estimates_pb2.JobEstimate) -> None:
    if job.HasField("error"):
        total.error_count += 1
        return
    found = job.estimate
    total.estimated_count += 1
    total.free_count += not found.price.high.micros
    total.page_count += found.page_count
    total.ocr_page_count += found.ocr_page_count
    total.provider_calls += found.provider_calls
    for level in ("low", "expected", "high"):
        for name in ("input_tokens", "output_tokens"):
            tokens: estimate_pb2.TokenRange = getattr(total, name)
            setattr(tokens, level, getattr(tokens, level) + getattr(getattr(found, name), level))
        price: money_pb2.Money = getattr(total.price, level)
        price.currency = getattr(found.price, level).currency or "USD"
        price.micros += getattr(found.price, level).micros


def _print(output: Output, job: job_estimates_pb2.JobEstimate, title: str) -> None:
    if output.as_json:
        output.result({"job": message_json(job)})
        return
    told = "" if title == job.document else f"  {title}"
    if job.HasField("error"):
        output.write(f"{job.document}  {_reason(job)}: {job.error.message}{told}\n")
        return
    if job.estimate.cached:
        output.write(f"{job.document}  free  its answer is in the cache{told}\n")
        return
    price, pages = job.estimate.price, counted(job.estimate.page_count, "page")
    cost = f"{money(price.expected)}  ({money(price.low)} to {money(price.high)})"
    output.write(f"{job.document}  {'free' if not price.high.micros else cost}  {pages}{told}\n")


def _print_total(output: Output, total: job_estimates_pb2.JobsTotal) -> None:
    price, sent, received = total.price, total.input_tokens, total.output_tokens
    scans = f", {total.ocr_page_count} of them scans to be read by a model" if total.ocr_page_count else ""
    output.write(
        f"\nprice    {money(price.expected)}  ({money(price.low)} to {money(price.high)})\n"
        f"jobs     {total.estimated_count}, {total.free_count} of them free\n"
        f"pages    {total.page_count}{scans}\n"
        f"calls    {total.provider_calls}\n"
        f"tokens   {sent.expected} to the model  ({sent.low} to {sent.high}), "
        f"{received.expected} back  ({received.low} to {received.high})\n"
    )
