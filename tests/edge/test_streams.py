"""Streams through the edge to the real services: events in order, server-sent over HTTP, and every sentence cited."""

from typing import Any

import pytest

from tests.edge import files
from tests.edge.conftest import UPLOAD, World
from tests.integration.extractor import made_pdfs

STREAM = "pagemesh.summarizer.v1.SummarizerService/StreamSummarize"
USAGE = "pagemesh.ledger.v1.LedgerService/QueryUsage"
EXTRACT = "pagemesh.extractor.v1.ExtractorService/ExtractPages"


def check_summary(events: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = [next(iter(event)) for event in events]
    assert kinds[-1] == "summary"
    assert "progress" in kinds
    summary: dict[str, Any] = events[-1]["summary"]
    sentences = [event["sentence"] for event in events if "sentence" in event]
    assert sentences == summary["sentences"] != []
    for sentence in sentences:
        assert sentence["grounded"]
        (citation, *_) = sentence["citations"]
        assert citation["page"] in (1, 2, 3)
        assert citation["quote"]
        for box in citation["boxes"]:
            assert box["x0"] < box["x1"]
            assert box["y0"] < box["y1"]
    return summary


@pytest.mark.parametrize("way", ["grpc", "json"])
def test_a_summary_comes_into_being(world: World, way: str) -> None:
    uploaded = world.edge.json(UPLOAD, {}, world.keys["admin"], body=files.good(3, f"Read over {way}."))
    document = uploaded.messages[0]["document"]["name"]
    if way == "grpc":
        outcome = world.edge.grpc(STREAM, {"document": document}, world.keys["admin"])
    else:
        outcome = world.edge.json(STREAM, {"document": document}, world.keys["admin"])
        assert outcome.headers["content-type"].startswith("text/event-stream")
    summary = check_summary(outcome.messages)
    assert summary["document"] == document
    (event_id,) = summary["consumption"]["usageEventIds"]
    usage = world.edge.json(USAGE, {"document": document}, world.keys["admin"]).messages[0]
    (record,) = usage["records"]
    assert record["event"]["eventId"] == event_id
    assert record["cost"] == summary["consumption"]["cost"] == usage["totalCost"]
    assert int(record["cost"]["micros"]) > 0
    assert record["event"]["operation"] == "summarize.map"


def test_the_second_time_costs_nothing(world: World) -> None:
    uploaded = world.edge.json(UPLOAD, {}, world.keys["admin"], body=files.good(3, "Asked twice."))
    request = {"document": uploaded.messages[0]["document"]["name"]}
    first = check_summary(world.edge.json(STREAM, request, world.keys["admin"]).messages)
    again = world.edge.json(STREAM, request, world.keys["admin"]).messages
    assert [next(iter(event)) for event in again] == ["sentence"] * len(first["sentences"]) + ["summary"]
    second = again[-1]["summary"]
    assert second["cached"] is True
    assert second["sentences"] == first["sentences"]
    assert int(second["consumption"]["cost"].get("micros", 0)) == 0


def test_pages_are_one_json_object_a_line(world: World) -> None:
    outcome = world.edge.json(EXTRACT, {"name": world.names["GOOD"], "readMask": "words"}, world.keys["admin"])
    assert [next(iter(message)) for message in outcome.messages] == ["start", "page", "page", "page", "end"]
    page = outcome.messages[1]["page"]
    assert page["words"][0]["text"] == "Pagemesh"
    assert not page.get("text")


@pytest.mark.parametrize("way", ["grpc", "json"])
def test_what_is_there_together_may_come_together(world: World, way: str) -> None:
    ask = world.edge.grpc if way == "grpc" else world.edge.json
    uploaded = world.edge.json(UPLOAD, {}, world.keys["admin"], body=files.good(40, f"In bursts over {way}."))
    request = {"name": uploaded.messages[0]["document"]["name"], "readMask": "text"}
    one_by_one = ask(EXTRACT, request, world.keys["admin"]).messages
    outcome = ask(EXTRACT, {**request, "bursts": True}, world.keys["admin"])
    assert all(set(message) == {"burst"} for message in outcome.messages)
    events = [event for message in outcome.messages for event in message["burst"]["events"]]
    assert [next(iter(event)) for event in events] == ["start", *["page"] * 40, "end"]
    assert len(outcome.messages) < 10
    assert events[:-1] == one_by_one[:-1]


@pytest.mark.parametrize("words", [4_000, 30_000])
def test_a_dense_page_is_whole_over_json_too(world: World, words: int) -> None:
    uploaded = world.edge.json(UPLOAD, {}, world.keys["admin"], body=files.dense(words))
    request = {"name": uploaded.messages[0]["document"]["name"], "readMask": "text,words"}
    outcome = world.edge.json(EXTRACT, request, world.keys["admin"])
    assert [next(iter(message)) for message in outcome.messages] == ["start", "page", "end"]
    assert len(outcome.messages[1]["page"]["words"]) == words


@pytest.mark.parametrize("way", ["grpc", "json"])
def test_ten_thousand_pages_arrive_in_order(world: World, ten_thousand_pages: str, way: str) -> None:
    request = {"name": ten_thousand_pages, "readMask": "text"}
    ask = world.edge.grpc if way == "grpc" else world.edge.json
    outcome = ask(EXTRACT, request, world.keys["admin"])
    assert outcome.code == "OK", outcome.message
    assert outcome.messages[0]["start"]["pageCount"] == 10_000
    assert [message["page"]["number"] for message in outcome.messages[1:-1]] == list(range(1, 10_001))
    assert outcome.messages[-1]["end"]["pagesSent"] == 10_000


@pytest.fixture(scope="module")
def ten_thousand_pages(world: World) -> str:
    uploaded = world.edge.json(UPLOAD, {}, world.keys["admin"], body=made_pdfs.book(10_000))
    return str(uploaded.messages[0]["document"]["name"])


def test_a_truncated_document_says_so(world: World) -> None:
    outcome = world.edge.json(EXTRACT, {"name": world.names["TRUNCATED"]}, world.keys["admin"])
    if outcome.code == "OK":
        assert "DOCUMENT_FLAG_REPAIRED" in outcome.messages[0]["start"]["flags"]
    else:
        assert outcome.reason in ("DOCUMENT_CORRUPT", "DOCUMENT_HAS_NO_PAGES"), outcome
