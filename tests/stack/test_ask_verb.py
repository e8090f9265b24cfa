"""`pagemesh ask`: what it asks, and how it prints an answer."""

import pytest

from pagemesh.common.v1 import page_pb2
from pagemesh.summarizer.v1 import answer_pb2, personal_data_pb2, summary_pb2
from tests.stack.conftest import Edge
from tests.stack.scripted_edge import Script, page_of

FIRST, SECOND = f"documents/{'7' * 32}", f"documents/{'8' * 32}"
BOX = page_pb2.BoundingBox(x0=1, y0=2, x1=3, y1=4)
ANSWER = answer_pb2.Answer(
    found=True,
    text="It is three months. Or more.",
    statements=[
        answer_pb2.AnswerStatement(
            text="It is three months.",
            grounded=True,
            citations=[answer_pb2.AnswerCitation(document=SECOND, page=4, quote="three months", boxes=[BOX])],
        ),
        answer_pb2.AnswerStatement(text="Or more."),
    ],
    grounded_share=0.5,
    model="mistral/m",
    anonymised=[
        personal_data_pb2.AnonymisedItems(kind=personal_data_pb2.PERSONAL_DATA_KIND_EMAIL, count=2),
    ],
    consumption=summary_pb2.Consumption(settled=True, usage_event_ids=["a"]),
)


def script(answer: answer_pb2.Answer = ANSWER) -> Script:
    return Script(answer=answer, usage=[page_of("a")])


@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["whole", "streamed"])
def test_an_answer_is_printed_with_what_it_is_from_and_what_it_cost(edge: Edge, stream: tuple[str, ...]) -> None:
    asked = script()
    answer = edge(asked)(
        *("ask", "How long?", FIRST, SECOND, FIRST, "--language", "de", "--model", "mistral/m", "--passages", "3"),
        *("--max-cost", "0.02", "--anonymise", "email,person"),
        *stream,
    )
    assert answer.code == 0, answer.err
    assert f"  1. It is three months.\n     {SECOND} page 4, [1.0 2.0 3.0 4.0]\n" in answer.out
    assert "“three months”" in answer.out
    assert "  2. Or more.\n     not grounded" in answer.out
    assert "50% of the sentences are grounded; written by mistral/m" in answer.out
    assert "summarize.map" in answer.out
    assert answer.out.startswith("It is three months.Or more.\n\n" if stream else "  1. ")
    (request,) = asked.questions
    assert (request.question, list(request.documents)) == ("How long?", [FIRST, SECOND])
    options = request.options
    assert (options.language, options.model, options.max_passages) == ("de", "mistral/m", 3)
    assert (request.max_cost.currency, request.max_cost.micros) == ("USD", 20_000)
    assert list(options.anonymise) == [
        personal_data_pb2.PERSONAL_DATA_KIND_EMAIL,
        personal_data_pb2.PERSONAL_DATA_KIND_PERSON,
    ]
    assert "replaced before text left: 2 email\n" in answer.out


@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["whole", "streamed"])
def test_all_documents_are_asked_where_none_is_named(edge: Edge, stream: tuple[str, ...]) -> None:
    asked = script()
    since = ("--since", "2026-01-31", "--page-language", "en", "--page-language", "de")
    assert edge(asked)("ask", "How long?", *since, *stream).code == 0
    (request,) = asked.questions
    assert list(request.documents) == []
    assert list(request.languages) == ["en", "de"]
    assert request.stored_after.ToJsonString() == "2026-01-31T00:00:00Z"
    assert not request.HasField("stored_before")
    assert not request.HasField("max_cost")


def test_where_there_is_no_answer_that_is_what_is_printed(edge: Edge) -> None:
    nothing = answer_pb2.Answer(text="There is none.", consumption=summary_pb2.Consumption(settled=True))
    answer = edge(script(nothing))("ask", "How long?")
    assert (answer.code, answer.out) == (0, "There is none.\n"), answer.err


def test_machines_get_the_answer_and_the_usage(edge: Edge) -> None:
    answer = edge(script())("ask", "How long?", "--json")
    assert [next(iter(line)) for line in answer.lines] == ["answer", "usage"]
    assert answer.lines[0]["answer"]["statements"][0]["citations"][0]["page"] == 4
    streamed = edge(script())("ask", "How long?", "--json", "--stream")
    assert [next(iter(line)) for line in streamed.lines][-2:] == ["answer", "usage"]


def test_pages_that_failed_make_the_answer_incomplete(edge: Edge) -> None:
    failed = answer_pb2.Answer()
    failed.CopyFrom(ANSWER)
    failed.failed_pages.add(document=FIRST, page=3)
    answer = edge(script(failed))("ask", "How long?")
    assert answer.code != 0
    assert f"PAGES_FAILED: Pages that could not be read were not looked at: {FIRST} page 3." in answer.err


def test_kinds_that_are_not_there_are_refused(edge: Edge) -> None:
    refused = edge(script())("ask", "Who?", "--anonymise", "emial")
    assert refused.code == 2
    assert "there is no 'emial'" in " ".join(refused.err.replace("\u2502", "").split())
