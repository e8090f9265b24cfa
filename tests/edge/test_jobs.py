"""Jobs through the edge to the real services and the stack's own worker."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from tests.edge import files
from tests.edge.conftest import UPLOAD, World

IDENTITY = "pagemesh.ledger.v1.IdentityService/"
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


@pytest.mark.parametrize("ends", ["key", "project"])
def test_a_job_of_what_ended_meanwhile_is_not_done(world: World, ends: str) -> None:
    admin = world.keys["admin"]
    uploaded = world.edge.json(UPLOAD, {}, admin, body=files.good(2, f"Its {ends} ends first."))
    document = uploaded.messages[0]["document"]["name"]
    project = {"project_id": f"ends-{uuid.uuid4().hex[:12]}", "display_name": "It ends"}
    made = world.edge.grpc(IDENTITY + "CreateProject", project, admin).messages[0]["project"]["name"]
    scopes = ["jobs.create", "summaries.create"]
    wanted = {"display_name": "It ends", "scopes": scopes, "project": made}
    key = world.edge.grpc(IDENTITY + "CreateApiKey", wanted, admin).messages[0]
    job = {"document": document, "work": {"summarize": {}}, "schedule_time": _in(timedelta(seconds=8))}
    name = world.edge.grpc(JOBS + "CreateJob", job, key["secret"]).messages[0]["job"]["name"]
    if ends == "key":
        ended = world.edge.grpc(IDENTITY + "RevokeApiKey", {"name": key["apiKey"]["name"]}, admin)
    else:
        change = {"project": {"name": made, "active": False}, "update_mask": "active"}
        ended = world.edge.grpc(IDENTITY + "UpdateProject", change, admin)
    assert ended.code == "OK", ended
    watched = world.edge.grpc(JOBS + "WatchJob", {"name": name}, admin)
    assert watched.code == "OK", watched
    found = world.edge.grpc(JOBS + "GetJob", {"name": name}, admin).messages[0]["job"]
    assert found["state"] == "JOB_STATE_FAILED"
    assert "its jobs are not done any more" in found["error"]["message"]
    usage = world.edge.json(USAGE, {"document": document}, admin).messages[0]
    assert usage["records"] == []


def _in_an_hour() -> str:
    return _in(timedelta(hours=1))


def _in(time: timedelta) -> str:
    return (datetime.now(UTC) + time).isoformat().replace("+00:00", "Z")
