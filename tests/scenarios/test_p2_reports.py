"""P2, a processor of maintenance reports: its user drops a folder of PDFs as one batch, urgent ones first; structured
rows land in Postgres; failed ones wait in the dead letters and can be retried.

That large PDFs do not grow memory is proven by tests/integration/extractor/test_parser_processes.py.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.conftest import RunningStack
from tests.edge import files
from tests.scenarios.conftest import Caller, Callers, folder, report

pytestmark = pytest.mark.timeout(400)  # the stack may have to start first, on a machine that is busy

SCHEMA = {
    "type": "object",
    "properties": {
        "machine": {"type": "string"},
        "inspected": {"type": "string", "format": "date"},
        "hours": {"type": "integer", "title": "Operating hours"},
    },
    "required": ["machine", "inspected", "hours"],
}


def sheet(number: int) -> bytes:
    lines = [f"Machine: PRESS-{number:02d}", f"Inspected: 2026-03-{number:02d}", f"Operating hours: {1000 + number}"]
    return report(lines, "Maintenance report")


def soon() -> str:
    return (datetime.now(UTC) + timedelta(seconds=2)).isoformat().replace("+00:00", "Z")


def rows(stack: RunningStack, tenant: str, batch: str) -> list[tuple[str, str, bool]]:
    """What a report reads out of Postgres, as a role that row security holds for."""
    with psycopg.connect(stack.superuser_dsn) as connection:
        connection.execute("SET LOCAL ROLE summarizer")
        query = """
            SELECT fields ->> 'machine', fields ->> 'hours', valid FROM summarizer.extracted_rows
            WHERE batch = %s ORDER BY 1
        """
        key = (batch.removeprefix("jobBatches/"),)
        assert connection.execute(query, key).fetchall() == []  # a tenant that was forgotten shows nothing
        connection.execute("SELECT set_config('pagemesh.tenant', 'somebody-else', true)")
        assert connection.execute(query, key).fetchall() == []
        connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
        return connection.execute(query, key).fetchall()


def test_a_folder_becomes_rows(
    new_tenant: Callable[[str], tuple[str, Caller]], stack: RunningStack, tmp_path: Path
) -> None:
    tenant, clerk = new_tenant("p2")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    folder(inbox, {f"{number}.pdf": sheet(number) for number in range(1, 5)} | {"locked.pdf": files.encrypted()})

    done = clerk.pagemesh("jobs", "submit", str(inbox), "--schema", str(schema), "--watch")
    assert done.code == 8, done.err
    assert "4 of 5 jobs succeeded" in done.err
    batch = done.out.split()[0]
    assert rows(stack, tenant, batch) == [(f"PRESS-{number:02d}", str(1000 + number), True) for number in range(1, 5)]

    # What failed is in the dead letters with its reason, and can be tried again: it ends there again, once.
    (dead,) = clerk.pagemesh("jobs", "dead", "--json").lines
    assert dead["batch"] == batch
    assert "password" in dead["error"]["message"].lower()
    retried = clerk.pagemesh("jobs", "retry", "--dead")
    assert f"{dead['name']} queued" in retried.out
    assert clerk.pagemesh("jobs", "watch", dead["name"]).code == 1
    assert [job["name"] for job in clerk.pagemesh("jobs", "dead", "--json").lines] == [dead["name"]]


@pytest.fixture(scope="module")
def clerk(new_tenant: Callable[[str], tuple[str, Caller]]) -> Caller:
    return new_tenant("p2")[1]


def test_urgent_ones_go_first(clerk: Caller) -> None:
    names = [
        clerk.http("POST", "/v1/documents:upload", sheet(number), "application/pdf").messages[0]["document"]["name"]
        for number in range(1, 13)
    ]
    due = soon()

    def batch(documents: list[str], priority: str) -> str:
        request = {"documents": documents, "work": {"extractFields": {"jsonSchema": SCHEMA}}, "scheduleTime": due}
        made = clerk.post("/v1/jobs:batchCreate", {**request, "priority": f"JOB_PRIORITY_{priority}"})
        return str(made["batch"]["name"])

    later, first = batch(names[:-1], "BATCH"), batch(names[-1:], "URGENT")
    for name in (first, later):
        watched = clerk.pagemesh("jobs", "watch", name)
        assert watched.code == 0, watched.err
    jobs = {name: clerk.get(f"/v1/jobs?batch={name}&page_size=100")["jobs"] for name in (first, later)}
    ((urgent,), others) = jobs[first], jobs[later]
    began_before = [job for job in others if job["startTime"] < urgent["startTime"]]
    assert len(began_before) < len(others) / 2, "it was handed in last, when all were waiting"


def test_what_failed_for_a_reason_that_is_gone_succeeds(clerk: Caller, caller: Callers) -> None:
    key = clerk.post("/v1/apiKeys", {"displayName": "scanner", "scopes": ["jobs.create", "fields.create"]})
    document = clerk.http("POST", "/v1/documents:upload", sheet(20), "application/pdf").messages[0]["document"]["name"]
    request = {"document": document, "work": {"extractFields": {"jsonSchema": SCHEMA}}, "scheduleTime": soon()}
    job = caller(key["secret"]).post("/v1/jobs", request)["job"]["name"]
    clerk.post(f"/v1/{key['apiKey']['name']}:revoke")
    assert clerk.pagemesh("jobs", "watch", job).code == 1
    assert clerk.get(f"/v1/{job}")["job"]["error"]["details"][0]["reason"] == "JOB_OWNER_INACTIVE"
    assert job in clerk.pagemesh("jobs", "dead").out
    assert clerk.pagemesh("jobs", "retry", job).code == 0
    assert clerk.pagemesh("jobs", "watch", job).code == 0
    found = clerk.get(f"/v1/{job}")["job"]["result"]["extraction"]
    assert found["json"] == {"machine": "PRESS-20", "inspected": "2026-03-20", "hours": 1020}
