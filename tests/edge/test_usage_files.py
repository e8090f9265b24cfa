"""Files of usage through the edge: the same over gRPC and over HTTP, with the type of a file."""

import base64
import csv
import io
import json

import pytest

from tests.edge.conftest import World

EXPORT = "pagemesh.ledger.v1.LedgerService/ExportUsage"
SUMMARIZE = "pagemesh.summarizer.v1.SummarizerService/Summarize"


@pytest.mark.parametrize(
    ("form", "content_type"),
    [("FORMAT_CSV", "text/csv; charset=utf-8"), ("FORMAT_NDJSON", "application/x-ndjson")],
)
def test_curl_gets_a_file(world: World, form: str, content_type: str) -> None:
    key = world.keys["admin"]
    request = {"document": world.names["GOOD"], "format": form}
    assert world.edge.grpc(SUMMARIZE, {"document": world.names["GOOD"]}, key).code == "OK"
    over_grpc = world.edge.grpc(EXPORT, request, key)
    contents = [message["content"] for message in over_grpc.messages]
    data = b"".join(base64.b64decode(content.get("data", "")) for content in contents)
    assert contents[0]["contentType"] == content_type
    answer = world.edge.json(EXPORT, request, key)
    assert (answer.http, answer.headers["content-type"], answer.body) == (200, content_type, data)
    if form == "FORMAT_CSV":
        rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    else:
        rows = [json.loads(line) for line in data.splitlines()]
    assert rows
    assert {row["document"] for row in rows} == {world.names["GOOD"]}
