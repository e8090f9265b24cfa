"""`pagemesh estimate`."""

from google.protobuf import duration_pb2

from pagemesh.summarizer.v1 import estimate_pb2, summarizer_service_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.anonymising import Anonymise, replaced
from pagemesh_cli.verbs.money import money
from pagemesh_cli.verbs.options import Access, Json, Timeout, connected, connecting
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
from pagemesh_cli.verbs.upload import Source, document_name


@connecting
def estimate(
    source: Source,
    *,
    length: LengthOption = Length.MEDIUM,
    style: StyleOption = Style.PARAGRAPH,
    language: LanguageOption = "",
    focus: FocusOption = "",
    audience: AudienceOption = "",
    model: ModelOption = "",
    ocr_model: OcrModelOption = "",
    anonymise: Anonymise = None,
    reuse_similar: ReuseSimilar = False,
    as_json: Json = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    access: Access,
) -> None:
    """Tell what a summary would use, cost and take. No model is called and nothing is spent."""
    output = Output(as_json=as_json)
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
    with connected(output, access) as client:
        document = document_name(client, output, source, timeout_s=timeout)
        found = _fetch(client, output, document, options, timeout_s=timeout)
        if as_json:
            output.result({"estimate": message_json(found), "requestId": client.request_id})
        else:
            print_estimate(output, found)


def _fetch(
    client: Client,
    output: Output,
    document: str,
    options: summarizer_service_pb2.SummaryOptions,
    *,
    timeout_s: float,
) -> estimate_pb2.Estimate:
    with output.progress("reading"):
        request = summarizer_service_pb2.EstimateRequest(document=document, summary=options)
        return client.unary(client.summarizer.Estimate, request, timeout_s=timeout_s).estimate


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
        f"pages    {found.page_count}{failed} in {found.chunk_count} parts{free}\n"
        f"{scans}calls    {found.provider_calls}\n"
        f"tokens   {sent.expected} to the model  ({sent.low} to {sent.high}), "
        f"{received.expected} back  ({received.low} to {received.high})\n"
        f"time     {_seconds(time.expected)} s  ({_seconds(time.low)} to {_seconds(time.high)})\n"
        f"{replaced(found.anonymised)}"
    )


def _seconds(duration: duration_pb2.Duration) -> str:
    return f"{duration.ToMilliseconds() / 1000:.1f}"
