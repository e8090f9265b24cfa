"""P4, a PDF service for many users: submit a job, watch it live, reconnect and lose nothing, see history and logs,
cancel; an admin sees workers, queue and costs."""

import http.client
import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.edge import files
from tests.scenarios.conftest import Caller, until
from tests.stack.running import Command

pytestmark = pytest.mark.timeout(400)  # the stack may have to start first, on a machine that is busy


def watched(user: Caller, job: str, after: int, most: int = 1000) -> list[dict[str, Any]]:
    """Events of a job as a browser gets them; hangs up after so many."""
    context = ssl.create_default_context(cafile=str(user.edge.ca_file))
    connection = http.client.HTTPSConnection(user.edge.host, user.edge.port, context=context, timeout=60)
    try:
        headers = {"authorization": f"Bearer {user.key}", "accept": "text/event-stream"}
        connection.request("GET", f"/v1/{job}:watch?after_sequence={after}", headers=headers)
        response = connection.getresponse()
        assert response.headers["content-type"] == "text/event-stream"
        events: list[dict[str, Any]] = []
        while len(events) < most and (line := response.readline()):
            if line.startswith(b"data:"):
                message = json.loads(line.removeprefix(b"data:"))
                events += [message["event"]] if message.get("event") else []
        return events
    finally:
        connection.close()


def submitted(user: Caller, pages: int, mark: str, **more: str) -> str:
    stored = user.http("POST", "/v1/documents:upload", files.good(pages, mark), "application/pdf")
    document = stored.messages[0]["document"]["name"]
    return str(user.post("/v1/jobs", {"document": document, "work": {"summarize": {}}, **more})["job"]["name"])


def test_a_service_for_many_users(new_tenant: Callable[[str], tuple[str, Caller]], operator: Command) -> None:
    tenant, user = new_tenant("p4")
    _, stranger = new_tenant("p4")

    # Live, with a connection that breaks after the first event: what comes after it is all that was missed.
    job = submitted(user, 6, "Watched live.")
    events = watched(user, job, 0, most=1)
    while events[-1]["state"] not in {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED"}:
        events += watched(user, job, int(events[-1]["sequence"]), most=2)
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["state"] == "JOB_STATE_SUCCEEDED"
    assert watched(user, job, 0) == events
    assert stranger.http("GET", f"/v1/{job}:watch").http == 404

    # History and log of a job; what it made.
    assert [one["name"] for one in user.get("/v1/jobs")["jobs"]] == [job]
    assert stranger.get("/v1/jobs")["jobs"] == []
    log = user.pagemesh("jobs", "watch", job)
    assert log.code == 0, log.err
    assert "succeeded" in log.out
    assert "1. " in user.pagemesh("jobs", "show", job).out

    # One that waits is seen by the operator, and cancelled by its user.
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    waiting = submitted(user, 1, "Cancelled before its time.", scheduleTime=later)
    queues = operator("jobs", "queues", "--limit", "100", "--json").json["queues"]
    (queue,) = [queue for queue in queues if queue["tenant"] == f"tenants/{tenant}"]
    assert (queue["queued"], queue["due"], queue["running"]) == (1, 0, 0)
    assert f"tenants/{tenant}" in operator("jobs", "queues", "--limit", "100").out
    assert stranger.http("POST", f"/v1/{waiting}:cancel", {}).http == 404
    assert f"{waiting} cancelled" in user.pagemesh("jobs", "cancel", waiting).out
    assert user.get(f"/v1/{waiting}")["job"]["state"] == "JOB_STATE_CANCELLED"
    queues = operator("jobs", "queues", "--limit", "100", "--json").json.get("queues", [])
    assert f"tenants/{tenant}" not in {queue["tenant"] for queue in queues}

    # Workers with their health; costs by job.
    processes = operator("status", "--json").out
    assert "worker" in processes
    until(lambda: user.get("/v1/usage?group_by=USAGE_DIMENSION_JOB")["groups"])
    (group,) = user.get("/v1/usage?group_by=USAGE_DIMENSION_JOB")["groups"]
    assert group["job"] == job
    assert "cost" in user.pagemesh("usage", "--by", "job").out
