"""`pagemesh summarize`."""

import enum
from collections.abc import Sequence
from typing import Annotated

import typer

from pagemesh.common.v1 import money_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2, summary_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.failures import ExitCode, Failure, from_status
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.anonymising import Anonymise, Kinds
from pagemesh_cli.verbs.bill import is_verbatim, print_consumption, print_usage, recorded_usage, sentence_text
from pagemesh_cli.verbs.money import MaxCost
from pagemesh_cli.verbs.options import Access, Json, Timeout, connected, connecting
from pagemesh_cli.verbs.upload import Source, document_name


class Length(enum.StrEnum):
    """SummaryLength of the contract."""

    SHORT = "short"
    MEDIUM = "medium"
    LONG = "long"


class Style(enum.StrEnum):
    """SummaryStyle of the contract."""

    PARAGRAPH = "paragraph"
    BULLETS = "bullets"


LengthOption = Annotated[Length, typer.Option(help="About 3, 7 or 15 sentences.")]
StyleOption = Annotated[Style, typer.Option(help="Running text, or a list.")]
LanguageOption = Annotated[str, typer.Option(help="Language to write in, such as `de`; the document's own by default.")]
FocusOption = Annotated[str, typer.Option(help="What the reader cares about.")]
AudienceOption = Annotated[str, typer.Option(help="Who will read it; a model that writes puts it accordingly.")]
ModelOption = Annotated[str, typer.Option(help="`provider/model`; the stack's default otherwise.")]

OcrModelOption = Annotated[
    str,
    typer.Option(
        help="`provider/model` that reads pages without text of their own, such as mistral/mistral-ocr-latest; `none` "
        "for nobody; the stack's default otherwise."
    ),
]

ReuseSimilar = Annotated[
    bool,
    typer.Option("--reuse-similar", help="Take what was bought for nearly identical parts of other documents."),
]


@connecting
def summarize(
    source: Source,
    *,
    length: LengthOption = Length.MEDIUM,
    style: StyleOption = Style.PARAGRAPH,
    language: LanguageOption = "",
    focus: FocusOption = "",
    audience: AudienceOption = "",
    model: ModelOption = "",
    fallback: Annotated[
        list[str] | None,
        typer.Option(help="Another model that may answer where that one cannot; again for more, in their order."),
    ] = None,
    ocr_model: OcrModelOption = "",
    max_cost: MaxCost = None,
    anonymise: Anonymise = None,
    reuse_similar: ReuseSimilar = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print each sentence as soon as its citations are checked.")
    ] = False,
    as_json: Json = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    access: Access,
) -> None:
    """Summarise a document: every sentence with page, quote and boxes, then what it cost."""
    output = Output(as_json=as_json)
    options = summary_options(
        length,
        style,
        language,
        focus,
        model,
        fallbacks=fallback or (),
        audience=audience,
        ocr_model=ocr_model,
        anonymise=anonymise,
        reuse_similar=reuse_similar,
    )
    with connected(output, access) as client:
        document = document_name(client, output, source, timeout_s=timeout)
        if stream:
            summary = _streamed(client, output, document, options, style, max_cost=max_cost, timeout_s=timeout)
        else:
            summary = fetch_summary(client, output, document, options, max_cost=max_cost, timeout_s=timeout)
            _print_whole(output, summary, style)
        # The summary is paid and on the screen before anything else is asked for.
        if not as_json:
            print_consumption(output, summary)
        records = recorded_usage(client, output, summary)
        if as_json:
            output.result({"usage": [message_json(record) for record in records], "requestId": client.request_id})
        else:
            print_usage(output, records)
        check_complete(summary, request_id=client.request_id)


def summary_options(
    length: Length,
    style: Style,
    language: str,
    focus: str,
    model: str,
    *,
    fallbacks: Sequence[str] = (),
    ocr_model: str = "",
    audience: str = "",
    anonymise: Kinds | None = None,
    reuse_similar: bool = False,
) -> summarizer_service_pb2.SummaryOptions:
    """The options as the contract has them; the service checks what is free text."""
    return summarizer_service_pb2.SummaryOptions(
        length=summary_pb2.SummaryLength.Value(f"SUMMARY_LENGTH_{length.name}"),
        style=summary_pb2.SummaryStyle.Value(f"SUMMARY_STYLE_{style.name}"),
        language=language,
        focus=focus,
        model=model,
        fallback_models=fallbacks,
        ocr_model=ocr_model,
        audience=audience,
        anonymise=anonymise or (),
        reuse_similar=reuse_similar,
    )


def fetch_summary(
    client: Client,
    output: Output,
    document: str,
    options: summarizer_service_pb2.SummaryOptions,
    *,
    max_cost: money_pb2.Money | None = None,
    timeout_s: float,
) -> summary_pb2.Summary:
    """The whole summary in one answer."""
    with output.progress("summarising"):
        request = summarizer_service_pb2.SummarizeRequest(document=document, options=options, max_cost=max_cost)
        return client.unary(client.summarizer.Summarize, request, timeout_s=timeout_s).summary


def _streamed(
    client: Client,
    output: Output,
    document: str,
    options: summarizer_service_pb2.SummaryOptions,
    style: Style,
    *,
    max_cost: money_pb2.Money | None,
    timeout_s: float,
) -> summary_pb2.Summary:
    """The same, printed as it comes into being. Raises Failure where the stream breaks off."""
    request = summarizer_service_pb2.StreamSummarizeRequest(document=document, options=options, max_cost=max_cost)
    printed = 0
    with output.progress("summarising", printing=True) as meter:
        for event in client.stream(client.summarizer.StreamSummarize, request, timeout_s=timeout_s):
            kind = event.WhichOneof("event")
            if kind == "error":
                raise from_status(event.error, request_id=client.request_id)
            if output.as_json:
                output.result(message_json(event))
            elif kind == "sentence":
                printed += 1
                print_sentence(output, printed, event.sentence, style)
            if kind == "progress":
                parts = event.progress.chunk_count
                done = event.progress.chunks_done if parts else event.progress.pages_read
                meter.at(done, parts or event.progress.page_count)
            if kind == "summary":
                return event.summary
    raise Failure("The summary broke off before its end.", reason="CUT_OFF", request_id=client.request_id)


def _print_whole(output: Output, summary: summary_pb2.Summary, style: Style) -> None:
    if output.as_json:
        output.result({"summary": message_json(summary)})
    else:
        print_sentences(output, summary, style)


def check_complete(summary: summary_pb2.Summary, *, request_id: str) -> None:
    """Raises Failure INCOMPLETE where pages are missing from what was summarised, and says which."""
    if summary.failed_pages:
        pages = ", ".join(map(str, summary.failed_pages))
        raise Failure(
            f"Pages that could not be read are not in the summary: {pages}.",
            ExitCode.INCOMPLETE,
            "PAGES_FAILED",
            request_id=request_id,
        )


def print_sentences(output: Output, summary: summary_pb2.Summary, style: Style) -> None:
    """All sentences, numbered or as a list."""
    for number, sentence in enumerate(summary.sentences, start=1):
        print_sentence(output, number, sentence, style)


def print_sentence(output: Output, number: int, sentence: summary_pb2.SummarySentence, style: Style) -> None:
    """The sentence, then each of its citations: page, boxes in points, and the quote where it says anything else."""
    mark = "  - " if style is Style.BULLETS else f"{number:>3}. "
    output.write(f"{mark}{sentence_text(sentence)}\n")
    for citation in sentence.citations:
        boxes = " ".join(f"[{box.x0:.1f} {box.y0:.1f} {box.x1:.1f} {box.y1:.1f}]" for box in citation.boxes)
        output.write(f"     page {citation.page}, {boxes or 'as a model read it'}\n")
        if not is_verbatim(sentence, citation):
            output.write(f"       \u201c{citation.quote}\u201d\n")
    if sentence.reused_from:
        output.write(f"     written for {sentence.reused_from}, which is nearly the same\n")
    if not sentence.grounded:
        output.write("     not grounded: nothing like it was found in the document\n")
