"""Questions through the edge to the real services: found by the real index, answered offline, cited, forgotten."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pagemesh_cli.demo import document_path
from tests.edge import files
from tests.edge.conftest import UPLOAD, World
from tests.edge.test_pasted_examples import _CURL

ASK = "pagemesh.summarizer.v1.SummarizerService/Ask"
STREAM = "pagemesh.summarizer.v1.SummarizerService/StreamAsk"
GET = "pagemesh.extractor.v1.ExtractorService/GetDocument"
EXTRACT = "pagemesh.extractor.v1.ExtractorService/ExtractPages"
DELETE = "pagemesh.extractor.v1.ExtractorService/DeleteDocument"
USAGE = "pagemesh.ledger.v1.LedgerService/QueryUsage"
QUESTION = "What is set aside before a model is called?"
PAGE = Path(__file__).parents[2] / "docs" / "questions.md"


def upload(world: World, mark: str, key: str = "admin") -> str:
    stored = world.edge.json(UPLOAD, {}, world.keys[key], body=files.good(3, mark))
    return str(stored.messages[0]["document"]["name"])


@pytest.mark.parametrize("way", ["grpc", "json"])
def test_an_answer_comes_into_being(world: World, way: str) -> None:
    document = upload(world, f"Asked over {way}.")
    call = world.edge.grpc if way == "grpc" else world.edge.json
    outcome = call(STREAM, {"question": QUESTION, "documents": [document]}, world.keys["admin"])
    if way == "json":
        assert outcome.headers["content-type"].startswith("text/event-stream")
    kinds = [next(iter(event)) for event in outcome.messages]
    assert list(dict.fromkeys(kinds)) == ["progress", "textDelta", "statement", "answer"]
    answer = outcome.messages[-1]["answer"]
    assert answer["found"] is True
    assert "the highest possible price is set aside" in answer["text"]
    (citation, *_) = answer["statements"][0]["citations"]
    assert (citation["document"], citation["page"]) == (document, 3)
    assert citation["boxes"][0]["x0"] < citation["boxes"][0]["x1"]
    (event_id,) = answer["consumption"]["usageEventIds"]
    usage = world.edge.json(USAGE, {"document": document}, world.keys["admin"]).messages[0]
    assert [(r["event"]["eventId"], r["event"]["operation"]) for r in usage["records"]] == [(event_id, "ask")]


def test_all_documents_are_searched_and_none_of_another_tenants(world: World) -> None:
    mine = upload(world, "The quokka of Rottnest is named on this page.")
    theirs = upload(world, "The numbat of Dryandra is named on this page.", "other")
    for document, key in ((mine, "admin"), (theirs, "other")):
        assert world.edge.json(EXTRACT, {"name": document}, world.keys[key]).code == "OK"
        deadline = time.monotonic() + 60
        while (
            world.edge.json(GET, {"name": document}, world.keys[key]).messages[0]["document"].get("searchablePages", 0)
            < 3
        ):
            assert time.monotonic() < deadline

    def ask(animal: str, key: str) -> dict[str, Any]:
        outcome = world.edge.json(ASK, {"question": f"Which {animal} is named?"}, world.keys[key])
        answer: dict[str, Any] = outcome.messages[0]["answer"]
        return answer

    for animal, document, key, stranger in (("quokka", mine, "admin", "other"), ("numbat", theirs, "other", "admin")):
        answer = ask(animal, key)
        assert answer["found"] is True
        assert {cited["document"] for said in answer["statements"] for cited in said["citations"]} == {document}
        assert ask(animal, key)["cached"] is True
        assert ask(animal, stranger)["found"] is False
    assert world.edge.json(DELETE, {"name": mine}, world.keys["admin"]).code == "OK"
    assert ask("quokka", "admin")["found"] is False


def test_the_examples_of_the_page_can_be_pasted(world: World) -> None:
    upload(world, "For the examples.")
    uploaded = world.edge.json(UPLOAD, {}, world.keys["admin"], body=document_path().read_bytes())
    demo = uploaded.messages[0]["document"]["name"]
    found = list(_CURL.finditer(PAGE.read_text()))
    assert len(found) == PAGE.read_text().count("\ncurl ") == 2
    for example in found:
        headers = {
            "authorization": f"Bearer {world.keys['admin']}",
            "content-type": "application/x-www-form-urlencoded",
        }
        answer = world.edge.http("POST", example["path"], example["body"].encode(), headers)
        assert answer.http == 200, (example[0], answer.body)
    # The first one finds its answer in the document that comes with the command.
    question = json.loads(found[0]["body"]) | {"documents": [demo]}
    answer = world.edge.json(ASK, question, world.keys["admin"]).messages[0]["answer"]
    assert answer["found"] is True
    assert "highest possible price" in answer["text"]
