"""How long documents are kept, and that nothing is left of them, through the edge and all services."""

import datetime as dt
import hashlib
import itertools
import json

from pagemesh_cli.stack.process import wait_until
from tests.edge import files
from tests.edge.conftest import UPLOAD, World

GET = "pagemesh.extractor.v1.ExtractorService/GetDocument"
DELETE = "pagemesh.extractor.v1.ExtractorService/DeleteDocument"
UPDATE = "pagemesh.extractor.v1.ExtractorService/UpdateDocument"
RECEIPTS = "pagemesh.extractor.v1.ExtractorService/ListDeletionReceipts"
SUMMARIZE = "pagemesh.summarizer.v1.SummarizerService/Summarize"
_pages = itertools.count(31)


def upload(world: World, **parameters: str) -> dict[str, str]:
    """A document that nobody else has."""
    answer = world.edge.json(UPLOAD, parameters, world.keys["admin"], body=files.good(next(_pages)))
    assert answer.http == 200, answer
    document: dict[str, str] = answer.messages[0]["document"]
    return document


def days_left(document: dict[str, str]) -> float:
    left = dt.datetime.fromisoformat(document["expireTime"]) - dt.datetime.now(dt.UTC)
    return left / dt.timedelta(days=1)


def test_an_upload_says_in_its_query_how_long_it_is_kept(world: World) -> None:
    assert upload(world)["retention"] == "RETENTION_TEMPORARY"
    until = (dt.datetime.now(dt.UTC) + dt.timedelta(days=9)).isoformat().replace("+00:00", "Z")
    kept = upload(world, retention="RETENTION_KEPT", expire_time=until)
    assert kept["retention"] == "RETENTION_KEPT"
    assert round(days_left(kept), 2) == 9
    refused = world.edge.json(
        UPLOAD, {"retention": "RETENTION_EPHEMERAL", "expire_time": until}, world.keys["admin"], body=files.good(4)
    )
    assert (refused.http, refused.reason, refused.fields) == (400, "EXPIRE_TIME_WITHOUT_KEPT", ["expire_time"])


def test_a_patch_changes_how_long_it_is_kept(world: World) -> None:
    document = upload(world)
    headers = {"authorization": f"Bearer {world.keys['admin']}", "content-type": "application/json"}
    body = json.dumps({"retention": "RETENTION_KEPT"}).encode()
    changed = world.edge.http("PATCH", f"/v1/{document['name']}", body, headers)
    assert changed.http == 200, changed
    assert round(days_left(changed.messages[0]["document"])) == 365
    # The transcoder names what the body holds; a mask in the query is the caller's.
    masked = world.edge.http("PATCH", f"/v1/{document['name']}?updateMask=retention", b"{}", headers)
    assert masked.messages[0]["document"]["retention"] == "RETENTION_TEMPORARY"
    over_grpc = world.edge.grpc(
        UPDATE, {"document": {"name": document["name"], "retention": "RETENTION_KEPT"}}, world.keys["admin"]
    )
    assert over_grpc.messages[0]["document"]["retention"] == "RETENTION_KEPT"
    missing = world.edge.http("PATCH", f"/v1/documents/{'0' * 32}", body, headers)
    assert (missing.http, missing.reason) == (404, "DOCUMENT_NOT_FOUND")


def test_a_deletion_takes_along_what_the_summarizer_made(world: World) -> None:
    name = upload(world)["name"]
    assert world.edge.json(SUMMARIZE, {"document": name}, world.keys["admin"]).http == 200
    assert world.edge.json(SUMMARIZE, {"document": name}, world.keys["admin"]).messages[0]["summary"]["cached"]

    def stored() -> bool:
        return "pageCount" in world.edge.json(GET, {"name": name}, world.keys["admin"]).messages[0]["document"]

    assert wait_until(stored, timeout_s=20), "pages are stored a moment after they were read"
    answer = world.edge.json(DELETE, {"name": name}, world.keys["admin"])
    assert answer.http == 200, answer
    receipt = answer.messages[0]["receipt"]
    assert receipt["resultsDeleted"] >= 2, "an answer of the model, and the summary in the cache"
    assert receipt["pagesDeleted"] > 0
    assert receipt["cause"] == "REQUESTED"
    listed = world.edge.json(RECEIPTS, {"page_size": 1000}, world.keys["admin"]).messages[0]["receipts"]
    assert receipt in listed
    assert receipt["digest"] == digest_of(receipt)
    assert receipt not in world.edge.json(RECEIPTS, {}, world.keys["other"]).messages[0].get("receipts", [])


def digest_of(receipt: dict[str, str]) -> str:
    """Out of JSON, as docs/extraction.md does it."""
    at = dt.datetime.fromisoformat(receipt["deleteTime"]) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    values = {
        "name": receipt["name"],
        "document": receipt["document"],
        "sha256": receipt["sha256"],
        "size_bytes": receipt["sizeBytes"],
        "objects_deleted": receipt.get("objectsDeleted", 0),
        "pages_deleted": receipt.get("pagesDeleted", 0),
        "index_entries_deleted": receipt.get("indexEntriesDeleted", 0),
        "results_deleted": receipt.get("resultsDeleted", 0),
        "cause": receipt["cause"],
        "delete_time_us": at // dt.timedelta(microseconds=1),
    }
    lines = ["pagemesh-deletion-receipt-v1", *(f"{name}={value}" for name, value in values.items())]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def test_an_ephemeral_document_is_gone_when_its_summary_is_there(world: World) -> None:
    name = upload(world, retention="RETENTION_EPHEMERAL")["name"]
    assert world.edge.grpc(SUMMARIZE, {"document": name}, world.keys["admin"]).code == "OK"
    assert world.edge.grpc(GET, {"name": name}, world.keys["admin"]).code == "NOT_FOUND"
    assert world.edge.json(SUMMARIZE, {"document": name}, world.keys["admin"]).http == 404

    def receipts() -> dict[str, dict[str, str]]:
        listed = world.edge.json(RECEIPTS, {"page_size": 1000}, world.keys["admin"]).messages[0]
        return {receipt["document"]: receipt for receipt in listed.get("receipts", [])}

    assert wait_until(lambda: name in receipts(), timeout_s=30)
    assert receipts()[name]["cause"] == "PROCESSED"
    assert int(receipts()[name]["resultsDeleted"]) >= 2
