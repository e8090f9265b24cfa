"""`pagemesh estimate`."""

from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import duration_pb2

from pagemesh.summarizer.v1 import estimate_pb2, job_pb2, summarizer_service_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.anonymising import Anonymise, replaced
from pagemesh_cli.verbs.job_documents import stored
from pagemesh_cli.verbs.job_estimates import estimate_jobs
from pagemesh_cli.verbs.looking import looking
from pagemesh_cli.verbs.money import money
from pagemesh_cli.verbs.options import Access, Json, Timeout, connected, connecting
from pagemesh_cli.verbs.ranges import PagesOption
from pagemesh_cli.verbs.summaries import (
    AudienceOption,
    FocusOption,
    LanguageOption,
    Length,
    LengthOption,
    ModelOption,
    OcrModelOption,
    ReuseSimilar,
    Style,
    StyleOption,
    summary_options,
)
from pagemesh_cli.verbs.upload import DOCUMENT, document_name, files_of

_MOST_DOCUMENTS = 100
"""Of one question: the contract's bound."""


@connecting
def estimate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="DOCUMENT|FILE|FOLDER…", help="`documents/{id}`, or files and folders, which are uploaded first."
        ),
    ],
    *,
    length: LengthOption = Length.MEDIUM,
    style: StyleOption = Style.PARAGRAPH,
    language: LanguageOption = "",
    focus: FocusOption = "",
    audience: AudienceOption = "",
    schema: Annotated[
        str,
        typer.Option(metavar="FILE|NAME", help="Of fields, not of a summary: JSON Schema, or `schemas/{id}`."),
    ] = "",
    pages: PagesOption = "",
    ask: Annotated[
        str, typer.Option(metavar="QUESTION", help="Of an answer, not of a summary: one, from all of the documents.")
    ] = "",
    model: ModelOption = "",
    ocr_model: OcrModelOption = "",
    anonymise: Anonymise = None,
    reuse_similar: ReuseSimilar = False,
    as_json: Json = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    access: Access,
) -> None:
    """Tell what a summary, fields or an answer would use, cost and take. No model is called and nothing is spent.

    Of several documents, or a folder: each of them, and all together."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = summarizer_service_pb2.EstimateRequest()
        if schema or ask or pages:
            _look(request, looking(schema, ask, model, ocr_model, anonymise or (), pages=pages), language)
        else:
            options = summary_options(
                length,
                style,
                language,
                focus,
                model,
                audience=audience,
                ocr_model=ocr_model,
                anonymise=anonymise,
                reuse_similar=reuse_similar,
            )
            request.summary.CopyFrom(options)
        if not ask and (len(sources) > 1 or Path(sources[0]).is_dir()):
            estimate_jobs(client, output, _as_job(request), stored(client, output, sources))
            return
        names = _asked_about(client, output, sources, timeout_s=timeout)
        request.document, *others = dict.fromkeys(names)
        request.more_documents.extend(others)
        with output.progress("reading"):
            found = client.unary(client.summarizer.Estimate, request, timeout_s=timeout).estimate
        if as_json:
            output.result({"estimate": message_json(found), "requestId": client.request_id})
        else:
            print_estimate(output, found)


def _asked_about(client: Client, output: Output, sources: list[str], *, timeout_s: float) -> list[str]:
    """The documents of one estimate, those of folders too. Raises Failure where they are more than a question may be
    about, before any is uploaded."""
    if not any(Path(source).is_dir() for source in sources):
        return [document_name(client, output, source, timeout_s=timeout_s) for source in sources]
    count = sum(1 if DOCUMENT.match(source) else len(list(files_of([Path(source)]))) for source in sources)
    if count > _MOST_DOCUMENTS:
        raise Failure(
            f"A question is about {_MOST_DOCUMENTS} documents at most, and these are {count:,}.",
            ExitCode.USAGE,
            "TOO_MANY_DOCUMENTS",
            advice="`pagemesh jobs submit FOLDER --ask QUESTION --estimate` asks each of them by itself.",
        )
    return list(stored(client, output, sources))


def _look(request: summarizer_service_pb2.EstimateRequest, work: job_pb2.JobWork, language: str) -> None:
    """Asks for the price of fields, or of an answer in the language."""
    if work.HasField("ask"):
        request.question.CopyFrom(work.ask)
        request.question.options.language = language
    else:
        request.fields.CopyFrom(work.extract_fields)


def _as_job(request: summarizer_service_pb2.EstimateRequest) -> job_pb2.JobWork:
    """The same for many documents, each by itself."""
    if request.HasField("fields"):
        return job_pb2.JobWork(extract_fields=request.fields)
    return job_pb2.JobWork(summarize=request.summary)


def print_estimate(output: Output, found: estimate_pb2.Estimate) -> None:
    """What is expected, with its range behind it."""
    if found.cached:
        output.write(f"free: the answer of {found.model} is in the cache\n")
        return
    free = f", {found.free_chunk_count} of them paid for before" if found.free_chunk_count else ""
    failed = f" ({found.failed_page_count} cannot be read)" if found.failed_page_count else ""
    scans = f"scans    {found.ocr_page_count} to be read by {found.ocr_model}\n" if found.ocr_model else ""
    sent, received, price, time = found.input_tokens, found.output_tokens, found.price, found.duration
    output.write(
        f"price    {money(price.expected)}  ({money(price.low)} to {money(price.high)})\n"
        f"model    {found.model}, price book {found.price_book_version}\n"
        f"pages    {found.page_count}{failed} in {counted(found.chunk_count, 'part')}{free}\n"
        f"{scans}calls    {found.provider_calls}\n"
        f"tokens   {sent.expected} to the model  ({sent.low} to {sent.high}), "
        f"{received.expected} back  ({received.low} to {received.high})\n"
        f"time     {_seconds(time.expected)} s  ({_seconds(time.low)} to {_seconds(time.high)})\n"
        f"{replaced(found.anonymised)}"
    )


def _seconds(duration: duration_pb2.Duration) -> str:
    return f"{duration.ToMilliseconds() / 1000:.1f}"
