"""Pictures through the edge to the real services: whole, of the right type, and the same over gRPC and HTTP."""

import base64
import random
import struct
from typing import Any

import pymupdf
import pytest

from tests.edge.calling import Outcome
from tests.edge.conftest import UPLOAD, World

RENDER = "pagemesh.extractor.v1.ExtractorService/RenderPage"
IMAGE = "pagemesh.extractor.v1.ExtractorService/ExtractImage"
PIECE_BYTES = 256 * 1024


def joined(outcome: Outcome) -> tuple[str, bytes]:
    """Type and bytes of a picture that came over gRPC."""
    assert outcome.code == "OK", outcome
    contents = [message["content"] for message in outcome.messages]
    pieces = [base64.b64decode(content["data"]) for content in contents]
    assert all(len(piece) <= PIECE_BYTES for piece in pieces)
    return contents[0]["contentType"], b"".join(pieces)


def both_ways(world: World, rpc: str, **request: Any) -> tuple[str, bytes]:
    """The picture, which is the same over gRPC and over HTTP."""
    content_type, data = joined(world.edge.grpc(rpc, request, world.keys["admin"]))
    answer = world.edge.json(rpc, request, world.keys["admin"])
    assert (answer.http, answer.headers["content-type"]) == (200, content_type)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.body == data
    return content_type, data


def upload(world: World, data: bytes) -> str:
    uploaded = world.edge.json(UPLOAD, {}, world.keys["admin"], body=data)
    return str(uploaded.messages[0]["document"]["name"])


@pytest.mark.parametrize(("format_name", "content_type"), [("FORMAT_PNG", "image/png"), ("FORMAT_JPEG", "image/jpeg")])
def test_a_page_is_a_picture_of_its_size(world: World, format_name: str, content_type: str) -> None:
    given, data = both_ways(world, RENDER, name=world.names["GOOD"], page=2, dpi=72, format=format_name)
    assert given == content_type
    drawn: Any = pymupdf.Pixmap(data)
    assert (drawn.width, drawn.height) == (595, 842)
    assert min(drawn.samples) < 100 < max(drawn.samples)


def noise(width: int, height: int) -> bytes:
    pixels = random.Random(3).randbytes(width * height * 3)
    data: bytes = pymupdf.Pixmap(pymupdf.csRGB, width, height, pixels, False).tobytes("png")
    return data


def test_twelve_megabytes_come_whole(world: World) -> None:
    picture = noise(2000, 2000)
    assert len(picture) > 12_000_000
    name = upload(world, picture)
    assert both_ways(world, IMAGE, name=name) == ("image/png", picture)
    content_type, drawn = both_ways(world, RENDER, name=name, dpi=96, format="FORMAT_PNG")
    assert content_type == "image/png"
    assert struct.unpack(">II", drawn[16:24]) == (2000, 2000)
    assert len(drawn) > 11_000_000


def test_an_error_is_json_where_a_picture_was_asked_for(world: World) -> None:
    answer = world.edge.json(RENDER, {"name": world.names["GOOD"], "page": 99}, world.keys["admin"])
    assert (answer.http, answer.headers["content-type"]) == (400, "application/json")
    assert (answer.reason, answer.fields) == ("PAGE_OUT_OF_RANGE", ["page"])
