"""The audit trail through the whole stack: every service's requests are in it, and nothing that was in them."""

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pagemesh_cli.audit_chain import verify
from tests.conftest import RunningStack
from tests.edge import files
from tests.edge.calling import Edge
from tests.edge.conftest import UPLOAD, chunks
from tests.fakes.collector import Collector

EXTRACTOR = "pagemesh.extractor.v1.ExtractorService/"
SUMMARIZER = "pagemesh.summarizer.v1.SummarizerService/"
LEDGER = "pagemesh.ledger.v1."
LIST = LEDGER + "AuditService/ListEvents"
MARK = "Xylophonqtext"
QUERY = "Xylophonqquery"
NAME = "Xylophonqname.pdf"
PASSWORD = "Xylophonqpassword"
KEY_NAME = "Xylophonqkeyname"
ADDRESS = "198.51.100.23"


class Told:
    """A tenant of its own, and its trail."""

    def __init__(self, stack: RunningStack, collector: Collector, tenant: str) -> None:
        self.stack, self.collector, self.tenant = stack, collector, tenant
        self.edge = Edge(stack.host, stack.port, stack.ca_file)
        self.key = stack.new_tenant(tenant)

    def call(self, rpc: str, request: Any, **how: Any) -> list[dict[str, Any]]:
        outcome = self.edge.grpc(rpc, request, self.key, **how)
        assert outcome.code == "OK", outcome
        return outcome.messages

    def records(self, **conditions: Any) -> list[dict[str, Any]]:
        """Oldest first, but for the reads of the trail itself."""
        (answer,) = self.call(LIST, {"page_size": 1000, **conditions})
        events = [record["event"] for record in reversed(answer.get("records", []))]
        return [event for event in events if "AuditService" not in event["action"]]

    def until(self, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 60
        while not condition(found := self.records()):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        return found


@pytest.fixture(scope="module")
def told(stack: RunningStack, collector: Collector) -> Told:
    return Told(stack, collector, "audited")


def test_the_requests_of_every_service_are_told_and_nothing_of_what_was_in_them(told: Told) -> None:
    document = told.call(UPLOAD, chunks(files.good(2, MARK), NAME))[0]["document"]["name"]
    told.call(EXTRACTOR + "GetDocument", {"name": document})
    told.call(EXTRACTOR + "ExtractPages", {"name": document, "password": PASSWORD})
    told.call(EXTRACTOR + "SearchPages", {"query": QUERY})
    told.call(SUMMARIZER + "Summarize", {"document": document})
    made = told.call(LEDGER + "IdentityService/CreateApiKey", {"display_name": KEY_NAME, "scopes": ["usage.read"]})[0]
    told.call(EXTRACTOR + "DeleteDocument", {"name": document})
    told.edge.grpc(EXTRACTOR + "GetDocument", {"name": document}, told.key)
    browser = {"x-forwarded-for": ADDRESS, "user-agent": f"{MARK}/1", "referer": f"https://example.org/{MARK}"}
    told.edge.json(EXTRACTOR + "GetDocument", {"name": document}, told.key, headers=browser)
    events = told.until(lambda found: len(found) >= 11)
    told.collector.until(lambda spans: any(span.attributes.get("error.type") == "DOCUMENT_NOT_FOUND" for span in spans))
    by_action: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_action.setdefault(event["action"].rpartition(".")[2], []).append(event)
    assert {action: len(of) for action, of in by_action.items()} == {
        "ExtractorService/UploadDocument": 1,
        "ExtractorService/GetDocument": 3,
        "ExtractorService/ExtractPages": 1,
        "ExtractorService/SearchPages": 1,
        "SummarizerService/Summarize": 1,
        "IdentityService/CreateApiKey": 1,
        "ExtractorService/DeleteDocument": 1,
        "DeletionReceipt": 1,
        "Operator/bootstrap": 1,
    }
    of_document = ("UploadDocument", "GetDocument", "ExtractPages", "DeleteDocument")
    for name in of_document:
        assert {event["resource"] for event in by_action[f"ExtractorService/{name}"]} == {document}
    assert by_action["SummarizerService/Summarize"][0]["resource"] == document
    assert by_action["IdentityService/CreateApiKey"][0]["resource"] == made["apiKey"]["name"]
    gone = [event for event in by_action["ExtractorService/GetDocument"] if event.get("code")]
    assert [(event["code"], event["reason"]) for event in gone] == [(5, "DOCUMENT_NOT_FOUND")] * 2
    (receipt,) = by_action["DeletionReceipt"]
    (kept,) = told.call(EXTRACTOR + "ListDeletionReceipts", {})[0]["receipts"]
    assert receipt["resource"] == document
    assert receipt["details"]["digest"] == kept["digest"]
    assert receipt["details"]["receipt"] == kept["name"]
    requests = [event for event in events if "client" in event]
    assert len(requests) == len(events) - 2
    # One machine, one hash, whatever the caller says of itself.
    assert len({event["client"] for event in requests}) == 1
    assert len(requests[0]["client"]) == 32
    assert len({event["requestId"] for event in requests}) == len(requests)
    assert_nothing_leaked(told, made["secret"])


def assert_nothing_leaked(told: Told, new_key: str) -> None:
    """Neither in the tables of the trail, nor in an export, nor in any log, nor in a span."""
    planted = [MARK, QUERY, PASSWORD, KEY_NAME, "Xylophonq", told.key, new_key, ADDRESS, "127.0.0.1"]
    texts = [told.edge.json(LEDGER + "AuditService/ExportEvents", {}, told.key).body.decode()]
    with psycopg.connect(told.stack.superuser_dsn) as connection:
        for table in (("ledger", "audit_events"), ("extractor", "audit_outbox"), ("summarizer", "audit_outbox")):
            rows = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(*table))).fetchall()
            texts += [str(value) for row in rows for value in row]
    assert len(texts) > 10
    for secret in planted:
        assert not any(secret in text for text in texts), secret
    logs = [path.read_text(errors="replace") for path in told.stack.data.logs.iterdir()]
    for secret in planted[:-1]:  # addresses of the mesh itself are in its logs
        assert not any(secret in text for text in logs), secret
        assert not any(secret.encode() in request for request in told.collector.raw), secret
    clients = [span for span in told.collector.spans if span.service == "edge" and span.name == "edge"]
    assert clients
    assert {(span.attributes["peer.address"], span.attributes["user_agent"]) for span in clients} == {("-", "-")}


def test_an_export_over_http_is_the_proof(told: Told) -> None:
    answer = told.edge.json(LEDGER + "AuditService/ExportEvents", {}, told.key)
    assert (answer.http, answer.headers["content-type"]) == (200, "application/x-ndjson")
    proof = verify(answer.body.splitlines(keepends=True))
    assert proof.tenant == f"tenants/{told.tenant}"
    again = told.edge.json(LEDGER + "AuditService/GetChainHead", {}, told.key).messages[0]["head"]
    assert int(again["sequence"]) >= proof.end.sequence
    first = json.loads(answer.body.splitlines()[0])
    assert (first["kind"], first["sequence"]) == ("begin", 0)


def test_the_command_exports_and_proves(told: Told, tmp_path: Any) -> None:
    from tests.stack.running import Command

    pagemesh = Command.on(told.stack.data.root, PAGEMESH_API_KEY=told.key)
    assert pagemesh("whoami").code == 0
    head = pagemesh("audit", "head").out.strip()
    file = tmp_path / "export.ndjson"
    assert pagemesh("audit", "export", str(file)).code == 0
    proven = pagemesh("audit", "verify", str(file), "--head", head)
    assert proven.code == 0, proven.err
    assert f"tenants/{told.tenant}" in proven.out
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    broken = pagemesh("audit", "verify", str(file), "--json")
    assert broken.code == 1
    assert broken.error["reason"] == "AUDIT_BROKEN"
    listed = pagemesh("audit", "list", "--failed", "--limit", "5")
    assert listed.code == 0, listed.err
    assert "action" in listed.out


def test_the_outboxes_run_empty(told: Told) -> None:
    deadline = time.monotonic() + 60
    while True:
        with psycopg.connect(told.stack.superuser_dsn) as connection:
            left = [
                connection.execute(
                    sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, "audit_outbox"))
                ).fetchone()
                for schema in ("extractor", "summarizer")
            ]
        if left == [(0,), (0,)]:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
