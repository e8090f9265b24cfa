"""Uploads through the edge: what is taken, what is refused, and that a broken one leaves nothing."""

import hashlib
import socket
import ssl
from collections.abc import Iterator

import pytest
from google.protobuf.message import Message

from tests.edge import files
from tests.edge.conftest import UPLOAD, World, chunks

LIMIT = 50 * 1024 * 1024
GET = "pagemesh.extractor.v1.ExtractorService/GetDocument"


def name_of(content: bytes) -> str:
    return f"documents/{hashlib.sha256(content).hexdigest()[:32]}"


def test_the_same_bytes_are_the_same_document_over_both_ways(world: World) -> None:
    content = files.good(4)
    over_json = world.edge.json(UPLOAD, {"display_name": "my report (1).pdf"}, world.keys["admin"], body=content)
    over_grpc = world.edge.grpc(UPLOAD, chunks(content), world.keys["admin"])
    first, second = over_json.messages[0], over_grpc.messages[0]
    assert first["created"] is True
    assert not second.get("created")
    assert first["document"]["name"] == second["document"]["name"] == name_of(content)
    assert first["document"]["displayName"] == "my_report__1_.pdf"
    assert first["document"]["mediaType"] == "application/pdf"
    assert first["document"]["sizeBytes"] == str(len(content))
    assert first["document"]["sha256"] == hashlib.sha256(content).hexdigest()


BAD = {
    "empty": (b"", "EMPTY_FILE"),
    "html": (files.html(), "UNSUPPORTED_MEDIA_TYPE"),
    "archive": (files.archive(), "UNSUPPORTED_MEDIA_TYPE"),
    "text": (b"Dear reader, this is no PDF. " * 50, "UNSUPPORTED_MEDIA_TYPE"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_document_is_refused(world: World, name: str) -> None:
    content, reason = BAD[name]
    for outcome in (
        world.edge.json(UPLOAD, {}, world.keys["admin"], body=content),
        world.edge.grpc(UPLOAD, chunks(content), world.keys["admin"]),
    ):
        assert outcome.code == "INVALID_ARGUMENT", outcome
        assert outcome.reason == reason
        assert outcome.fields == ["content"]
        assert outcome.http in (0, 400)
    assert world.edge.grpc(GET, {"name": name_of(content)}, world.keys["admin"]).code == "NOT_FOUND"


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..\\win.pdf",
        "invoice\u202efdp.pdf",
        "a\x00b.pdf",
        "a\r\nx: y.pdf",
        "NUL.pdf",
        "shell.php.pdf",
    ],
    ids=["up", "up-windows", "right-to-left", "zero", "header", "device", "program"],
)
def test_a_name_that_hides_something_is_refused(world: World, name: str) -> None:
    content = files.good(8)
    for outcome in (
        world.edge.json(UPLOAD, {"display_name": name}, world.keys["admin"], body=content),
        world.edge.grpc(UPLOAD, chunks(content, name), world.keys["admin"]),
    ):
        assert (outcome.code, outcome.reason) == ("INVALID_ARGUMENT", "SUSPICIOUS_FILE_NAME"), outcome
        assert outcome.fields == ["display_name"]
    assert world.edge.grpc(GET, {"name": name_of(content)}, world.keys["admin"]).code == "NOT_FOUND"


def test_past_the_limit_declared(world: World) -> None:
    """The length is enough: the answer comes before the first byte of the file."""
    headers = {"authorization": f"Bearer {world.keys['admin']}", "content-length": str(LIMIT + 1)}
    outcome = world.edge.http("POST", "/v1/documents:upload", None, headers)
    assert outcome.http == 413
    assert outcome.reason == "BODY_TOO_LARGE"


def test_past_the_limit_undeclared(world: World) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"%PDF-1.7\n"
        for _ in range(51):
            yield b"\0" * 1024 * 1024

    over_json = world.edge.json(UPLOAD, {}, world.keys["admin"], body=pieces())
    assert (over_json.http, over_json.reason) == (413, "BODY_TOO_LARGE"), over_json
    over_grpc = world.edge.grpc(UPLOAD, chunks(b"%PDF-1.7\n" + b"\0" * LIMIT), world.keys["admin"])
    assert (over_grpc.code, over_grpc.reason) == ("INVALID_ARGUMENT", "FILE_TOO_LARGE")


def test_cut_off_midway_leaves_nothing_and_the_next_one_works(world: World) -> None:
    content = files.good(5)
    context = ssl.create_default_context(cafile=str(world.edge.ca_file))
    head = (
        f"POST /v1/documents:upload HTTP/1.1\r\nhost: {world.edge.host}\r\n"
        f"authorization: Bearer {world.keys['admin']}\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    with (
        socket.create_connection((world.edge.host, world.edge.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=world.edge.host) as connection,
    ):
        connection.sendall(head.encode() + content[: len(content) // 2])
    assert world.edge.grpc(GET, {"name": name_of(content)}, world.keys["admin"]).code == "NOT_FOUND"
    assert world.edge.json(UPLOAD, {}, world.keys["admin"], body=content).http == 200


def test_an_upload_over_grpc_that_is_given_up_leaves_nothing(world: World) -> None:
    content = files.good(6)

    def half() -> Iterator[Message]:
        yield chunks(content[: len(content) // 2])[0]
        raise OSError("the disk of the client is gone")

    assert world.edge.grpc(UPLOAD, half(), world.keys["admin"]).code != "OK"
    assert world.edge.grpc(GET, {"name": name_of(content)}, world.keys["admin"]).code == "NOT_FOUND"
    assert world.edge.grpc(UPLOAD, chunks(content), world.keys["admin"]).code == "OK"


def test_a_key_that_may_only_read_may_not_upload(world: World) -> None:
    outcome = world.edge.json(UPLOAD, {}, world.keys["reader"], body=files.good(1))
    assert (outcome.http, outcome.reason) == (403, "SCOPE_MISSING")


def test_deleting_takes_the_document_away_and_proves_it(world: World) -> None:
    content = files.good(7)
    name = world.edge.json(UPLOAD, {}, world.keys["admin"], body=content).messages[0]["document"]["name"]
    receipt = world.edge.json(
        "pagemesh.extractor.v1.ExtractorService/DeleteDocument", {"name": name}, world.keys["admin"]
    ).messages[0]["receipt"]
    assert receipt["sha256"] == hashlib.sha256(content).hexdigest()
    assert receipt["objectsDeleted"] == 1
    assert world.edge.json(GET, {"name": name}, world.keys["admin"]).http == 404
