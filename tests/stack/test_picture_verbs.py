"""`pagemesh render` and `pagemesh extract --images`: pictures into files, each whole or not there."""

import json
from pathlib import Path

from google.api import httpbody_pb2

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from tests.stack.conftest import Edge
from tests.stack.scripted_edge import Answer, Script, refusal

DOCUMENT = f"documents/{'7' * 32}"
BEHIND_THE_END = refusal("OUT_OF_RANGE", "PAGE_OUT_OF_RANGE")
BUSY = refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_s=0.05)
LOCKED = refusal("FAILED_PRECONDITION", "DOCUMENT_ENCRYPTED")


def drawn(*pieces: bytes) -> list[Answer]:
    return [
        pb.RenderPageResponse(content=httpbody_pb2.HttpBody(content_type="image/jpeg" if not at else "", data=data))
        for at, data in enumerate(pieces)
    ]


def taken(content_type: str, data: bytes) -> list[Answer]:
    return [pb.ExtractImageResponse(content=httpbody_pb2.HttpBody(content_type=content_type, data=data))]


def test_a_page_is_drawn_as_asked(edge: Edge, tmp_path: Path) -> None:
    asked = Script(extractor={"RenderPage": [drawn(b"one", b"two")]})
    command = edge(asked)
    goal = tmp_path / "page.png"
    answer = command("render", DOCUMENT, "--page", "7", "--dpi", "72", "--quality", "50", "-o", str(goal))
    assert (answer.code, answer.out) == (0, f"{goal}\n")
    assert goal.read_bytes() == b"onetwo"
    request = asked.asked_of("RenderPage")[0]
    assert (request.page, request.dpi, request.jpeg_quality) == (7, 72, 50)
    assert request.format == pb.RenderPageRequest.FORMAT_PNG, "as the file is called"
    refused = command("render", DOCUMENT, "-o", str(goal), "--json")
    assert (refused.code, refused.error["reason"]) == (2, "FILE_EXISTS")
    assert len(asked.asked) == 1
    assert command("render", DOCUMENT, "-o", str(goal), "--force", "--json").json["files"] == [str(goal)]
    assert command("render", DOCUMENT).out == "onetwo"


def test_a_terminal_gets_no_picture(edge: Edge) -> None:
    answer = edge(Script()).at_terminal("render", DOCUMENT)
    assert answer.code == 2
    assert "name a file with --output" in answer.out


def test_a_picture_that_breaks_off_leaves_no_file(edge: Edge, tmp_path: Path) -> None:
    cut = [*drawn(b"one"), refusal("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")]
    answer = edge(Script(extractor={"RenderPage": [cut]}))("render", DOCUMENT, "-o", str(tmp_path / "page.jpg"))
    assert answer.code == 3
    assert list(tmp_path.iterdir()) == []
    empty = edge(Script(extractor={"RenderPage": [[]]}))("render", DOCUMENT, "-o", str(tmp_path / "page.jpg"))
    assert empty.code == 1
    assert list(tmp_path.iterdir()) == []


def test_pages_are_drawn_into_a_folder_up_to_the_last(edge: Edge, tmp_path: Path) -> None:
    asked = Script(extractor={"RenderPage": [drawn(b"2"), [BUSY], drawn(b"4"), drawn(b"5"), [BEHIND_THE_END]]})
    answer = edge(asked)("render", DOCUMENT, "--pages", "2,4-", "-o", str(tmp_path / "drawn"))
    assert answer.code == 0, answer
    names = {path.name: path.read_bytes() for path in (tmp_path / "drawn").iterdir()}
    assert names == {"0002.jpg": b"2", "0004.jpg": b"4", "0005.jpg": b"5"}
    assert [request.page for request in asked.asked_of("RenderPage")] == [2, 4, 4, 5, 6]
    assert answer.out.splitlines() == [str(tmp_path / "drawn" / name) for name in sorted(names)]


def test_a_range_behind_the_end_is_refused(edge: Edge, tmp_path: Path) -> None:
    answer = edge(Script(extractor={"RenderPage": [[BEHIND_THE_END]]}))(
        "render", DOCUMENT, "--pages", "40-", "-o", str(tmp_path / "drawn"), "--json"
    )
    assert (answer.code, answer.error["reason"]) == (2, "PAGE_OUT_OF_RANGE")


def test_the_password_is_asked_for_once(edge: Edge, tmp_path: Path) -> None:
    asked = Script(extractor={"RenderPage": [[LOCKED], drawn(b"1"), drawn(b"2"), [BEHIND_THE_END]]})
    answer = edge(asked).at_terminal(
        *("render", DOCUMENT, "--pages", "1-", "-o", str(tmp_path / "drawn")), replies={"Password": "some-secret"}
    )
    assert answer.code == 0, answer
    assert [request.password for request in asked.asked_of("RenderPage")] == ["", *["some-secret"] * 3]
    assert "secret" not in answer.out


def pages_with_pictures() -> list[Answer]:
    pages = [
        page_pb2.Page(number=number, text=f"{number}", images=[page_pb2.PageImage(index=at) for at in range(count)])
        for number, count in ((1, 2), (2, 0), (3, 1))
    ]
    return [
        pb.ExtractPagesResponse(start=extraction_pb2.ExtractionStart(page_count=3, first_page=1, last_page=3)),
        *(pb.ExtractPagesResponse(page=page) for page in pages),
        pb.ExtractPagesResponse(end=extraction_pb2.ExtractionEnd(pages_sent=3)),
    ]


def test_pictures_are_saved_as_they_are(edge: Edge, tmp_path: Path) -> None:
    taking = [taken("image/jpeg", b"a"), [BUSY], taken("image/png", b"b"), taken("image/png", b"c")]
    asked = Script(extractor={"ExtractPages": [pages_with_pictures()], "ExtractImage": taking})
    answer = edge(asked)("extract", DOCUMENT, "--images", str(tmp_path / "pictures"))
    assert (answer.code, answer.out) == (0, "1\n\f2\n\f3\n\f"), answer
    names = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert names == {"0001-00.jpg": b"a", "0001-01.png": b"b", "0003-00.png": b"c"}
    assert "saved 3 pictures" in answer.err
    wanted = [(request.page, request.index) for request in asked.asked_of("ExtractImage")]
    assert wanted == [(1, 0), (1, 1), (1, 1), (3, 0)]


def test_a_picture_that_is_lost_costs_itself(edge: Edge, tmp_path: Path) -> None:
    broken = refusal("FAILED_PRECONDITION", "PAGE_CORRUPT")
    taking: list[list[Answer]] = [taken("image/jpeg", b"a"), [broken], taken("image/png", b"c")]
    asked = Script(extractor={"ExtractPages": [pages_with_pictures()], "ExtractImage": taking})
    answer = edge(asked)("extract", DOCUMENT, "--images", str(tmp_path / "pictures"), "-o", str(tmp_path / "x.ndjson"))
    assert answer.code == 8
    assert "1 of page 1 (PAGE_CORRUPT)" in answer.err
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"0001-00.jpg", "0003-00.png"}
    kinds = [next(iter(json.loads(line))) for line in (tmp_path / "x.ndjson").read_text().splitlines()]
    assert kinds == ["start", "page", "page", "page", "end"]
