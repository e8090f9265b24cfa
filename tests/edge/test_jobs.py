"""Jobs through the edge to the real services and the stack's own worker."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.edge import files
from tests.edge.conftest import UPLOAD, World

JOBS = "pagemesh.summarizer.v1.JobService/"
USAGE = "pagemesh.ledger.v1.LedgerService/QueryUsage"


@pytest.mark.parametrize("way", ["grpc", "json"])
def test_a_job_is_watched_to_its_end_and_again_from_any_number(world: World, way: str) -> None:
    key = world.keys["admin"]
    ask = world.edge.grpc if way == "grpc" else world.edge.json
    uploaded = world.edge.json(UPLOAD, {}, key, body=files.good(3, f"A job over {way}."))
    document = uploaded.messages[0]["document"]["name"]
    made = ask(JOBS + "CreateJob", {"document": document, "work": {"summarize": {}}}, key)
    assert made.code == "OK", made
    name = made.messages[0]["job"]["name"]
    watched = ask(JOBS + "WatchJob", {"name": name}, key)
    assert watched.code == "OK", watched
    if way == "json":
        assert watched.headers["content-type"].startswith("text/event-stream")
    events = [message["event"] for message in watched.messages if "event" in message]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["state"] == "JOB_STATE_SUCCEEDED", events[-1]
    for after in (1, len(events) - 1, len(events)):
        again = ask(JOBS + "WatchJob", {"name": name, "after_sequence": after}, key)
        assert [message["event"] for message in again.messages] == events[after:]
    job = ask(JOBS + "GetJob", {"name": name}, key).messages[0]["job"]
    assert job["result"]["summary"]["sentences"]
    usage = world.edge.json(USAGE, {"document": document}, key).messages[0]
    (record,) = usage["records"]
    assert record["event"]["job"] == name


def test_a_job_of_a_document_that_is_deleted_says_so(world: World) -> None:
    key = world.keys["admin"]
    uploaded = world.edge.json(UPLOAD, {}, key, body=files.good(2, "Deleted while its job waits."))
    document = uploaded.messages[0]["document"]["name"]
    later = {"document": document, "work": {"extract": {}}, "schedule_time": _in_an_hour()}
    name = world.edge.grpc(JOBS + "CreateJob", later, key).messages[0]["job"]["name"]
    deleted = world.edge.grpc("pagemesh.extractor.v1.ExtractorService/DeleteDocument", {"name": document}, key)
    assert deleted.code == "OK", deleted
    job = world.edge.grpc(JOBS + "GetJob", {"name": name}, key).messages[0]["job"]
    assert job["state"] == "JOB_STATE_FAILED"
    assert "deleted" in job["error"]["message"]


def _in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
