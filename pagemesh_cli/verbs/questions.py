"""`pagemesh ask`."""

import datetime as dt
from typing import Annotated

import typer

from pagemesh.summarizer.v1 import answer_pb2, summary_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.failures import ExitCode, Failure, from_status
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.anonymising import Anonymise
from pagemesh_cli.verbs.bill import is_verbatim, print_consumption, print_usage, recorded_usage
from pagemesh_cli.verbs.money import MaxCost
from pagemesh_cli.verbs.options import Access, Json, Timeout, connected, connecting
from pagemesh_cli.verbs.times import when
from pagemesh_cli.verbs.upload import document_name


@connecting
def ask(
    question: Annotated[
        str, typer.Argument(help='In words; `"a phrase"` in double quotes is looked for as it stands.')
    ],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DOCUMENT|FILE]…",
            help="`documents/{id}`, or files, which are uploaded first; without any, all documents are searched.",
        ),
    ] = None,
    *,
    page_language: Annotated[
        list[str] | None, typer.Option(help="Only pages in this language, such as `en`; repeat for more.")
    ] = None,
    since: Annotated[dt.datetime | None, when("Only documents stored from then on")] = None,
    until: Annotated[dt.datetime | None, when("Only documents stored before then")] = None,
    language: Annotated[
        str, typer.Option(help="Language to answer in, such as `de`; the question's own by default.")
    ] = "",
    model: Annotated[str, typer.Option(help="`provider/model`; the stack's default otherwise.")] = "",
    fallback: Annotated[
        list[str] | None,
        typer.Option(help="Another model that may answer where that one cannot; again for more, in their order."),
    ] = None,
    passages: Annotated[int, typer.Option(min=1, max=32, help="Pages that the model is given, at most.")] = 8,
    max_cost: MaxCost = None,
    anonymise: Anonymise = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the text as it is written, then what it is from.")] = (
        False
    ),
    as_json: Json = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    access: Access,
) -> None:
    """Answer a question from documents: every statement with document, page, quote and boxes, then what it cost."""
    output = Output(as_json=as_json)
    request = answer_pb2.AskRequest(
        question=question,
        languages=page_language or [],
        options=answer_pb2.AnswerOptions(
            language=language,
            model=model,
            fallback_models=fallback or [],
            max_passages=passages,
            anonymise=anonymise or (),
        ),
    )
    if max_cost is not None:
        request.max_cost.CopyFrom(max_cost)
    if since is not None:
        request.stored_after.FromDatetime(since)
    if until is not None:
        request.stored_before.FromDatetime(until)
    with connected(output, access) as client:
        names = [document_name(client, output, source, timeout_s=timeout) for source in sources or []]
        request.documents.extend(dict.fromkeys(names))
        answer = _answer(client, output, request, stream=stream, timeout_s=timeout)
        bill = _bill(answer)
        # The answer is paid and on the screen before anything else is asked for.
        if not as_json and answer.statements:
            print_consumption(output, bill)
        # Where nothing was bought there is nothing to look up.
        records = recorded_usage(client, output, bill) if bill.consumption.usage_event_ids else []
        if as_json:
            output.result({"usage": [message_json(record) for record in records], "requestId": client.request_id})
        else:
            print_usage(output, records)
        check_complete(answer, request_id=client.request_id)


def check_complete(answer: answer_pb2.Answer, *, request_id: str) -> None:
    """Raises Failure INCOMPLETE where pages could not be read on which the answer may stand, and says which."""
    if answer.failed_pages:
        pages = ", ".join(f"{page.document} page {page.page}" for page in answer.failed_pages)
        raise Failure(
            f"Pages that could not be read were not looked at: {pages}.",
            ExitCode.INCOMPLETE,
            "PAGES_FAILED",
            request_id=request_id,
        )


def _answer(
    client: Client, output: Output, request: answer_pb2.AskRequest, *, stream: bool, timeout_s: float
) -> answer_pb2.Answer:
    """The answer, printed."""
    if stream:
        return _streamed(client, output, request, timeout_s=timeout_s)
    with output.progress("looking for an answer"):
        answer = client.unary(client.summarizer.Ask, request, timeout_s=timeout_s).answer
    if output.as_json:
        output.result({"answer": message_json(answer)})
    else:
        print_statements(output, answer)
    return answer


def _streamed(client: Client, output: Output, request: answer_pb2.AskRequest, *, timeout_s: float) -> answer_pb2.Answer:
    """The same, printed as it is written. Raises Failure where the stream breaks off."""
    streaming = answer_pb2.StreamAskRequest(
        question=request.question,
        documents=request.documents,
        languages=request.languages,
        options=request.options,
    )
    for field in ("stored_after", "stored_before", "max_cost"):
        if request.HasField(field):
            getattr(streaming, field).CopyFrom(getattr(request, field))
    written = False
    with output.progress("looking for an answer", printing=True):
        for event in client.stream(client.summarizer.StreamAsk, streaming, timeout_s=timeout_s):
            kind = event.WhichOneof("event")
            if kind == "error":
                raise from_status(event.error, request_id=client.request_id)
            if output.as_json:
                output.result(message_json(event))
            elif kind == "text_delta":
                written = True
                output.write(event.text_delta)
            if kind == "answer":
                if not output.as_json:
                    output.write("\n\n" if written else "")
                    print_statements(output, event.answer)
                return event.answer
    raise Failure("The answer broke off before its end.", reason="CUT_OFF", request_id=client.request_id)


def print_statements(output: Output, answer: answer_pb2.Answer) -> None:
    """Each statement with its citations; where there is no answer, that there is none."""
    if not answer.found:
        output.write(f"{answer.text}\n")
    for number, statement in enumerate(answer.statements, start=1):
        sentence = summary_pb2.SummarySentence(text=statement.text)
        output.write(f"{number:>3}. {statement.text}\n")
        for cited in statement.citations:
            boxes = " ".join(f"[{box.x0:.1f} {box.y0:.1f} {box.x1:.1f} {box.y1:.1f}]" for box in cited.boxes)
            output.write(f"     {cited.document} page {cited.page}, {boxes}\n")
            if not is_verbatim(sentence, summary_pb2.Citation(page=cited.page, quote=cited.quote)):
                output.write(f"       \u201c{cited.quote}\u201d\n")
        if not statement.grounded:
            output.write("     not grounded: nothing like it was found in the documents\n")


def _bill(answer: answer_pb2.Answer) -> summary_pb2.Summary:
    """The answer as what prints bills knows it."""
    return summary_pb2.Summary(
        anonymised=answer.anonymised,
        sentences=[
            summary_pb2.SummarySentence(
                text=statement.text,
                citations=[summary_pb2.Citation(page=cited.page, quote=cited.quote) for cited in statement.citations],
                grounded=statement.grounded,
            )
            for statement in answer.statements
        ],
        grounded_share=answer.grounded_share,
        model=answer.model,
        extractive=answer.extractive,
        cached=answer.cached,
        degraded_from=answer.degraded_from,
        consumption=answer.consumption,
    )
