"""Personal data through the real service: nothing of it is in any byte that a provider is sent, and answers have it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from google.protobuf import json_format

from pagemesh.summarizer.v1 import answer_pb2, fields_pb2, job_pb2, job_work_pb2, personal_data_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import DOCUMENT, Client, World, metadata
from tests.integration.summarizer.job_calls import SUCCEEDED, Jobs, worker_of
from tests.integration.summarizer.peers import Script

ALL = personal_data_pb2.PERSONAL_DATA_KIND_ALL
NONE = personal_data_pb2.PERSONAL_DATA_KIND_NONE
PLANTED = (
    "max.mueller@example.org", "0171 2345678", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111", "192.168.77.12",
    "86095742719", "04.03.1980", "Max Müller",
)  # fmt: skip
PAGES = (
    "The contract was signed by Herr Max Müller, born 04.03.1980.\n"
    "He is reached at max.mueller@example.org or Tel. 0171 2345678.\n"
    "A page may say [EMAIL_1] or [PHONE_7] without meaning anything.",
    "Rent is paid from DE89 3704 0044 0532 0130 00 every month.\n"
    "The deposit came by card 4111 1111 1111 1111 from 192.168.77.12.\n"
    "Max Müller has the tax number 86095742719 in all letters.",
)
SCHEMA = {
    "type": "object",
    "title": "About max.mueller@example.org",
    "properties": {"mail": {"type": "string", "format": "email"}, "born": {"type": "string", "format": "date"}},
}
QUESTION = "What did max.mueller@example.org say about the contract, the rent and the deposit?"
_LINE_OF = {"/mail": "[EMAIL_", "/born": "[DATE_"}


def repeat(body: dict[str, Any]) -> dict[str, Any]:
    """A model that says each line of what it sees, and makes a placeholder up."""
    asked = body["messages"][-1]["content"]
    found = re.search(r"^BEGIN (?P<fence>\S+)\n(?P<material>.*)\nEND (?P=fence)$", asked, re.DOTALL | re.MULTILINE)
    assert found is not None
    lines, page = list[tuple[str, int]](), 0
    for line in found["material"].splitlines():
        if line.startswith(f"[{found['fence']} page "):
            page = int(line.rpartition(" ")[2].rstrip("]"))
        elif line.strip():
            lines.append((line.strip(), page))
    if body["response_format"]["json_schema"]["name"] == "fields":
        return {"fields": [field for pointer, begins in _LINE_OF.items() for field in _field(pointer, begins, lines)]}
    said: list[dict[str, Any]] = [
        {"text": f"It says: {line}", "quotes": [{"quote": line, "page": page}]} for line, page in lines
    ]
    said[0]["text"] += " [EMAIL_77]"
    return {"sentences": said}


def _field(pointer: str, begins: str, lines: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    for line, page in lines:
        if begins in line:
            value = line[line.index(begins) :].partition("]")[0] + "]"
            yield {"pointer": pointer, "value": value, "quote": line, "page": page}
            return


@pytest.fixture
def mistral() -> Iterator[MistralServer]:
    with MistralServer(says=repeat) as server:
        yield server


@pytest.fixture(autouse=True)
def planted(world: World) -> None:
    world.extractor.documents[world.tenant, DOCUMENT] = Script(PAGES)


def assert_nothing_left(mistral: MistralServer, *, calls: int) -> None:
    """No request said anything of what was planted, whatever its spaces."""
    assert mistral.calls == calls
    for body in mistral.books.calls:
        sent = json.dumps(body, ensure_ascii=False)
        folded = re.sub(r"\W", "", sent).lower()
        for value in [*PLANTED, "Müller"]:
            assert value not in sent
            assert re.sub(r"\W", "", value).lower() not in folded
        assert "copy the placeholder exactly" in body["messages"][0]["content"]


def assert_restored(text: str, *, streamed: bool = False) -> None:
    """All values are there; no address of mail stays in text that is told before its citations are checked."""
    assert [value for value in PLANTED[streamed:] if value not in text] == []
    assert "[EMAIL_1] or [PHONE_7]" in text, "the document's own words"
    assert "[EMAIL_77]" in text, "what the model made up"
    assert not re.search(r"\[(?!EMAIL_1\]|PHONE_7\]|EMAIL_77\])[A-Z]+_\d+\]", text)


async def test_a_summary_and_its_stream(client: Client, world: World, mistral: MistralServer) -> None:
    wanted: dict[str, Any] = {
        "anonymise": [ALL],
        "focus": "what max.mueller@example.org owes",
        "audience": "the friends of Herr Max Müller",
    }
    request = service_pb2.EstimateRequest(document=DOCUMENT, summary=service_pb2.SummaryOptions(**wanted))
    expected = (await client.stub.Estimate(request, metadata=metadata(client.tenant))).estimate
    events = [event async for event in client.stream(**wanted)]
    assert_nothing_left(mistral, calls=1)
    summary = events[-1].summary
    assert_restored(summary.text)
    assert_restored("".join(event.text_delta for event in events), streamed=True)
    assert summary.grounded_share == 1
    quotes = [citation.quote for sentence in summary.sentences for citation in sentence.citations]
    assert quotes == [line for page in PAGES for line in page.splitlines()]
    counts = {item.kind: item.count for item in summary.anonymised}
    assert counts[personal_data_pb2.PERSONAL_DATA_KIND_EMAIL] == counts[personal_data_pb2.PERSONAL_DATA_KIND_CARD] == 1
    assert list(expected.anonymised) == list(summary.anonymised)
    again = await client.summarize(**wanted)
    assert (again.cached, list(again.anonymised)) == (True, list(summary.anonymised))
    assert mistral.calls == 1
    with psycopg.connect(world.database_url) as connection:
        connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", [world.tenant])
        (kept,) = connection.execute("SELECT answer FROM summarizer.results").fetchall()
    assert "[EMAIL_1]" in str(bytes(kept[0]) if isinstance(kept[0], memoryview) else kept[0])
    assert not [value for value in PLANTED[:7] if value in str(kept[0])]


async def test_what_is_asked_otherwise_is_answered_apart(client: Client, mistral: MistralServer) -> None:
    await client.summarize(anonymise=[ALL])
    plain = await client.summarize(anonymise=[NONE])
    assert not plain.cached
    assert PLANTED[0] in json.dumps(mistral.books.calls[-1], ensure_ascii=False)
    assert not plain.anonymised
    # Without the option nothing is replaced here, and that is the same request.
    assert (await client.summarize()).cached
    some = await client.summarize(anonymise=[personal_data_pb2.PERSONAL_DATA_KIND_EMAIL])
    assert not some.cached
    assert [item.kind for item in some.anonymised] == [personal_data_pb2.PERSONAL_DATA_KIND_EMAIL]
    assert mistral.calls == 3
    sent = json.dumps(mistral.books.calls[-1], ensure_ascii=False)
    assert (PLANTED[0] in sent, PLANTED[1] in sent) == (False, True)


async def test_fields_have_real_values(client: Client, mistral: MistralServer) -> None:
    request = fields_pb2.ExtractFieldsRequest(document=DOCUMENT, options=fields_pb2.FieldOptions(anonymise=[ALL]))
    json_format.ParseDict(SCHEMA, request.json_schema)
    answer = await client.stub.ExtractFields(request, timeout=30, metadata=metadata(client.tenant))
    assert_nothing_left(mistral, calls=1)
    found = answer.extraction
    assert json_format.MessageToDict(found.json) == {"mail": PLANTED[0], "born": "1980-03-04"}
    assert found.valid
    assert [field.grounded for field in found.fields] == [True, True]
    assert [field.citation.page for field in found.fields] == [1, 1]
    assert found.anonymised


async def test_a_value_that_is_asked_about_again_is_not_told(client: Client, mistral: MistralServer) -> None:
    request = fields_pb2.ExtractFieldsRequest(document=DOCUMENT, options=fields_pb2.FieldOptions(anonymise=[ALL]))
    wrong = {"type": "object", "properties": {"mail": {"maxLength": 3}, "born": {"maxLength": 3}}}
    json_format.ParseDict(wrong, request.json_schema)
    answer = await client.stub.ExtractFields(request, timeout=30, metadata=metadata(client.tenant))
    assert_nothing_left(mistral, calls=2)
    assert len(answer.extraction.violations) == 2


async def test_an_answer_and_its_stream(client: Client, mistral: MistralServer) -> None:
    options = answer_pb2.AnswerOptions(anonymise=[ALL])
    asked: dict[str, Any] = {"question": QUESTION, "documents": [DOCUMENT], "options": options}
    stream = client.stub.StreamAsk(answer_pb2.StreamAskRequest(**asked), timeout=30, metadata=metadata(client.tenant))
    events = [event async for event in stream]
    assert_nothing_left(mistral, calls=1)
    assert_restored("".join(event.text_delta for event in events), streamed=True)
    assert_restored(events[-1].answer.text)
    assert events[-1].answer.grounded_share == 1
    again = await client.stub.Ask(answer_pb2.AskRequest(**asked), timeout=30, metadata=metadata(client.tenant))
    assert_restored(again.answer.text)
    assert again.answer.cached
    assert list(again.answer.anonymised) == list(events[-1].answer.anonymised) != []
    assert mistral.calls == 1


async def test_a_job_has_replaced_what_its_request_or_the_deployment_says(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object]
) -> None:
    summarize = job_pb2.JobWork(summarize=service_pb2.SummaryOptions(anonymise=[ALL]))
    ask = job_pb2.JobWork(ask=job_work_pb2.AskWork(question=QUESTION))
    first, second = await jobs.create(DOCUMENT, work=summarize), await jobs.create(DOCUMENT, work=ask)
    async with worker_of(world, **paid, anonymise_always="all"):
        done = [await jobs.ended(job.name) for job in (first, second)]
    assert [job.state for job in done] == [SUCCEEDED, SUCCEEDED]
    assert_nothing_left(mistral, calls=2)
    assert_restored(done[0].result.summary.text)
    assert_restored(done[1].result.answer.text)
    assert done[0].result.summary.anonymised
    assert done[1].result.answer.anonymised
    assert len(done[0].work.summarize.anonymise) == 8


async def test_the_services_own_model_reads_the_document_as_it_is(client: Client, mistral: MistralServer) -> None:
    summary = await client.summarize(anonymise=[ALL], model="offline/lexrank")
    assert not summary.anonymised
    assert summary.grounded_share == 1
    assert mistral.calls == 0
