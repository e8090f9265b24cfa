"""`pagemesh extract` where things go wrong, and where its pages go."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh_cli.client import MAX_MESSAGE_BYTES
from services.runtime import server
from tests.stack.conftest import Edge
from tests.stack.scripted_edge import Answer, Script, refusal

DOCUMENT = f"documents/{'7' * 32}"
AWAY = refusal("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
LOCKED = refusal("FAILED_PRECONDITION", "DOCUMENT_ENCRYPTED")


def start(first: int, last: int, *, count: int | None = None) -> pb.ExtractPagesResponse:
    return pb.ExtractPagesResponse(
        start=extraction_pb2.ExtractionStart(page_count=count or last, first_page=first, last_page=last)
    )


def page(number: int, text: str = "", **more: Any) -> pb.ExtractPagesResponse:
    text = text or f"page {number}"
    return pb.ExtractPagesResponse(page=page_pb2.Page(number=number, text=text, markdown=f"# {text}", **more))


def failed(number: int, reason: str = "PAGE_CORRUPT") -> pb.ExtractPagesResponse:
    return pb.ExtractPagesResponse(failed_page=extraction_pb2.FailedPage(number=number, reason=reason, message="m"))


def end(sent: int) -> pb.ExtractPagesResponse:
    return pb.ExtractPagesResponse(end=extraction_pb2.ExtractionEnd(pages_sent=sent))


def script(*calls: list[Answer]) -> Script:
    return Script(extractor={"ExtractPages": list(calls)})


def ranges(asked: Script) -> list[tuple[int, int]]:
    return [(request.first_page, request.last_page) for request in asked.asked_of("ExtractPages")]


WHOLE: list[Answer] = [start(1, 3), page(1), page(2), page(3), end(3)]


def test_what_broke_off_goes_on_behind_the_last_page(edge: Edge) -> None:
    asked = script([start(1, 4), page(1), failed(2), AWAY], [start(3, 4), page(3)], [start(4, 4), page(4), end(1)])
    answer = edge(asked)("extract", DOCUMENT)
    assert answer.code == 8, answer
    assert answer.out == "page 1\n\f\fpage 3\n\fpage 4\n\f"
    assert ranges(asked) == [(1, 0), (3, 0), (4, 0)]
    assert "going on at page 3 after UPSTREAM_UNAVAILABLE" in answer.err
    assert "4 of 4" in answer.err


def test_calls_that_bring_no_page_are_not_made_again(edge: Edge) -> None:
    asked = script([start(1, 4), page(1), AWAY], [start(2, 4), AWAY])
    answer = edge(asked)("extract", DOCUMENT, "--format", "json")
    assert answer.code == 3
    assert len(asked.asked) == 2
    assert [found["number"] for found in answer.json["pages"]] == [1]
    assert answer.json["complete"] is False


@pytest.mark.parametrize(
    ("call", "code", "reason"),
    [
        ([start(1, 4)], 1, "CUT_OFF"),
        ([], 1, "CUT_OFF"),
        ([refusal("NOT_FOUND", "DOCUMENT_NOT_FOUND")], 5, "DOCUMENT_NOT_FOUND"),
        ([LOCKED], 1, "DOCUMENT_ENCRYPTED"),
        ([refusal("OUT_OF_RANGE", "PAGE_OUT_OF_RANGE")], 2, "PAGE_OUT_OF_RANGE"),
        ([refusal("RESOURCE_EXHAUSTED", "PARSER_BUSY", retry_s=1)], 6, "PARSER_BUSY"),
        ([pb.ExtractPagesResponse(error=refusal("FAILED_PRECONDITION", "DOCUMENT_MEMORY"))], 1, "DOCUMENT_MEMORY"),
    ],
)
def test_failures_keep_their_reasons(edge: Edge, call: list[Answer], code: int, reason: str) -> None:
    answer = edge(script(call))("extract", DOCUMENT, "-o", "/dev/null", "--json")
    assert answer.code == code
    assert answer.error["reason"] == reason


def test_pages_that_failed_are_listed_with_their_reasons(edge: Edge) -> None:
    events: list[Answer] = [failed(number) for number in (2, 3, 4, 9)]
    asked = script([start(1, 9), page(1), *events, failed(10, "PAGE_TIMEOUT"), end(1)])
    command = edge(asked)
    answer = command("extract", DOCUMENT, "--format", "markdown")
    assert answer.code == 8
    assert "5 pages could not be read: 2-4, 9 (PAGE_CORRUPT); 10 (PAGE_TIMEOUT)." in answer.err
    assert answer.out.startswith("# page 1\n\n<!-- page 2 could not be read: PAGE_CORRUPT -->\n")
    whole = command("extract", DOCUMENT, "--format", "json")
    assert whole.json["complete"] is True
    none = edge(script([start(1, 1), failed(1), end(0)]))("extract", DOCUMENT, "--images", "unused")
    assert "1 page could not be read: 1 (PAGE_CORRUPT).\n" in none.err
    assert "there are no pictures" in none.err
    assert [found["number"] for found in whole.json["failedPages"]] == [2, 3, 4, 9, 10]


def test_ranges_are_asked_for_in_order_and_once(edge: Edge) -> None:
    asked = script(
        [start(1, 2, count=9), page(1), page(2), end(2)],
        [start(4, 4, count=9), page(4), end(1)],
        [start(8, 9, count=9), page(8), page(9), end(2)],
    )
    answer = edge(asked)("extract", DOCUMENT, "--pages", "8-,4,1-2,2,4-4")
    assert answer.out == "".join(f"page {number}\n\f" for number in (1, 2, 4, 8, 9))
    assert ranges(asked) == [(1, 2), (4, 4), (8, 0)]
    assert "5 of 5" in answer.err


def test_too_many_calls_in_the_middle_are_waited_for(edge: Edge) -> None:
    busy = refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_s=0.05)
    asked = script([start(1, 1, count=9), page(1), end(1)], [busy], [start(4, 4, count=9), page(4), end(1)])
    answer = edge(asked)("extract", DOCUMENT, "--pages", "1,4")
    assert (answer.code, answer.out) == (0, "page 1\n\fpage 4\n\f"), answer
    assert ranges(asked) == [(1, 1), (4, 4), (4, 4)]


def test_the_pace_of_a_key_is_kept_from_the_first_call_on(edge: Edge) -> None:
    soon = refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_s=0.05)
    answer = edge(script([soon], [soon], [start(1, 1), page(1), end(1)]))("extract", DOCUMENT)
    assert (answer.code, answer.out) == (0, "page 1\n\f"), answer
    late = refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_s=60)
    told = edge(script([late], [start(1, 1), page(1), end(1)]))("extract", DOCUMENT)
    assert (told.code, "60 s" in told.err) == (6, True), "who would wait long is told"
    full = refusal("RESOURCE_EXHAUSTED", "PARSER_BUSY", retry_s=0.05)
    assert edge(script([full], [start(1, 1), page(1), end(1)]))("extract", DOCUMENT).code == 6


def test_what_is_computed_follows_from_the_format(edge: Edge) -> None:
    asked = script(WHOLE)
    command = edge(asked)
    for options in (
        ("--format", "text"),
        ("--format", "markdown"),
        ("--format", "ndjson"),
        ("--json", "--parts", "words, outline"),
        ("--format", "markdown", "--images", "unused", "--ocr", "always"),
    ):
        assert command("extract", DOCUMENT, *options).code == 0
    requests = asked.asked_of("ExtractPages")
    assert [list(request.read_mask.paths) for request in requests] == [
        *(["text"], ["markdown"], [], ["words", "outline"], ["markdown", "images"])
    ]
    assert [request.ocr for request in requests[-2:]] == [extraction_pb2.OCR_MODE_AUTO, extraction_pb2.OCR_MODE_ALWAYS]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--parts", "words"), "BAD_PARTS"),
        (("--format", "json", "--parts", "letters"), "BAD_PARTS"),
        (("--json", "--format", "text"), "BAD_FORMAT"),
        (("--pages", "0"), "BAD_PAGES"),
        (("--password-file", "no/such/file"), "BAD_PASSWORD_FILE"),
        (("--format", "ndjson", "-o", "{tmp}/"), "BAD_OUTPUT"),
    ],
)
def test_options_that_contradict_each_other(edge: Edge, tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    asked = script(WHOLE)
    answer = edge(asked)("extract", DOCUMENT, *(option.format(tmp=tmp_path) for option in options))
    assert answer.code == 2
    assert reason in answer.err
    assert asked.asked == []


def test_a_file_is_whole_or_beside_its_place(edge: Edge, tmp_path: Path) -> None:
    goal = tmp_path / "out.md"
    first = edge(script([start(1, 3), page(1), AWAY], [AWAY]))("extract", DOCUMENT, "-o", str(goal))
    assert first.code == 3
    assert not goal.exists()
    assert (tmp_path / "out.md.partial").read_text() == "# page 1\n"
    assert "out.md.partial" in first.err
    asked = script(WHOLE)
    command = edge(asked)
    assert command("extract", DOCUMENT, "-o", str(goal)).code == 0
    assert goal.read_text() == "# page 1\n\n# page 2\n\n# page 3\n"
    refused = command("extract", DOCUMENT, "-o", str(goal), "--json")
    assert (refused.code, refused.error["reason"]) == (2, "FILE_EXISTS")
    assert len(asked.asked) == 1, "nothing is read for nothing"
    replaced = command("extract", DOCUMENT, "-o", str(goal), "--format", "text", "--force", "--json")
    assert replaced.json["pages"] == 3
    assert goal.read_text() == "page 1\n\fpage 2\n\fpage 3\n\f"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_what_is_no_file_is_written_to_and_never_replaced(edge: Edge, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    assert edge(script(WHOLE))("extract", DOCUMENT, "-o", str(pipe)).code == 0
    reader.join(10)
    assert read == ["page 1\n\fpage 2\n\fpage 3\n\f"]
    assert pipe.is_fifo()


def test_a_folder_has_a_file_for_each_page(edge: Edge, tmp_path: Path) -> None:
    asked = script([start(1, 3), page(1), page(2), page(3), end(3)])
    command = edge(asked)
    folder = tmp_path / "new" / "pages"
    assert command("extract", DOCUMENT, "-o", f"{folder}/", "--format", "markdown").code == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        f"000{number}.md": f"# page {number}\n" for number in (1, 2, 3)
    }
    assert command("extract", DOCUMENT, "-o", str(folder), "--format", "json").code == 0
    assert json.loads((folder / "0002.json").read_text())["text"] == "page 2"
    assert json.loads((folder / "document.json").read_text()) == {
        **{"document": DOCUMENT, "pageCount": 3, "failedPages": [], "flags": [], "complete": True}
    }
    (folder / "0001.md").unlink()
    again = command("extract", DOCUMENT, "-o", str(folder), "--format", "markdown")
    assert again.code == 2
    assert "0002.md is there already" in again.err
    assert not (folder / "0001.md").exists(), "nothing is written before it is known that all may be"


def test_a_page_that_cannot_be_written_ends_it(edge: Edge, tmp_path: Path) -> None:
    answer = edge(script(WHOLE))("extract", DOCUMENT, "-o", str(tmp_path / "none" / "out.txt"), "--json")
    assert (answer.code, answer.error["reason"]) == (1, "CANNOT_WRITE")
    full = edge(script(WHOLE))("extract", DOCUMENT, "-o", "/dev/full", "--json")
    assert (full.code, full.error["reason"]) == (1, "CANNOT_WRITE")


def test_ctrl_c_leaves_whole_json(edge: Edge, tmp_path: Path) -> None:
    hang = threading.Event()
    asked = script([start(1, 9), page(1), page(2), hang])
    goal = tmp_path / "out.json"
    command = edge(asked)

    def two_pages_are_there() -> bool:
        return any(b'"number": 2' in path.read_bytes() for path in tmp_path.glob(".*.tmp"))

    try:
        answer = command.interrupted("extract", DOCUMENT, "-o", str(goal), when=two_pages_are_there)
    finally:
        hang.set()
    assert answer.code == 130, answer
    assert not goal.exists()
    partial = json.loads((tmp_path / "out.json.partial").read_text())
    assert [found["number"] for found in partial["pages"]] == [1, 2]
    assert partial["complete"] is False


def test_a_document_cannot_steer_the_terminal(edge: Edge) -> None:
    nasty = "a\x1b[2Jb\x9b31mc\u202ed\u00a0e\u00ade"
    command = edge(script([start(1, 1), page(1, nasty), end(1)]))
    assert command("extract", DOCUMENT).out == f"{nasty}\n\f", "files and pipes get what the page says"
    shown = command.at_terminal("extract", DOCUMENT, "--quiet").out
    assert shown == "a\ufffd[2Jb\ufffd31mc\ufffdd\u00a0e\u00ade\n\f"
    lines = command("extract", DOCUMENT, "--json")
    assert json.loads(lines.out.splitlines()[1])["page"]["text"] == nasty
    assert not {"\x1b", "\x9b", "\u202e"} & set(lines.out)


def test_pipes_get_utf_8_whatever_the_locale(edge: Edge) -> None:
    command = edge(script([start(1, 1), page(1, "\u20ac\U0001f600"), end(1)]))
    latin = replace(command, environment={**command.environment, "PYTHONIOENCODING": "latin-1"})
    answer = latin("extract", DOCUMENT)
    assert (answer.code, answer.out) == (0, "\u20ac\U0001f600\n\f"), answer
    assert latin.at_terminal("extract", DOCUMENT, "-q").out == "??\n\f"


@pytest.mark.parametrize("where", ["file", "stdin"])
def test_a_password_comes_from_a_file(edge: Edge, tmp_path: Path, where: str) -> None:
    (tmp_path / "secret").write_text("hunter 2 \n")
    asked = script(WHOLE)
    command = edge(asked)
    if where == "file":
        answer = command("extract", DOCUMENT, "--password-file", str(tmp_path / "secret"))
        assert answer.code == 0, answer
    else:
        subprocess.run(
            [sys.executable, "-m", "pagemesh_cli", "extract", DOCUMENT, "--password-file", "-"],
            env=dict(command.environment),
            input=b"hunter 2 \n",
            check=True,
            capture_output=True,
            timeout=60,
        )
    assert [request.password for request in asked.asked_of("ExtractPages")] == ["hunter 2 "]


def test_a_password_is_asked_for_at_a_terminal(edge: Edge) -> None:
    asked = script([LOCKED], [refusal("FAILED_PRECONDITION", "DOCUMENT_WRONG_PASSWORD")], WHOLE)
    replies = {"Password of the document: ": "first-secret", "That is not the password. Another: ": "second-secret"}
    answer = edge(asked).at_terminal("extract", DOCUMENT, replies=replies)
    assert answer.code == 0, answer
    assert [request.password for request in asked.asked_of("ExtractPages")] == ["", "first-secret", "second-secret"]
    assert "secret" not in answer.out
    assert "page 3" in answer.out


def test_nobody_is_asked_where_nobody_sits(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("wrong-secret")
    asked = script([LOCKED])
    command = edge(asked)
    answer = command("extract", DOCUMENT)
    assert answer.code == 1
    assert "--password-file" in answer.err
    given = command.at_terminal("extract", DOCUMENT, "--password-file", str(tmp_path / "secret"))
    assert given.code == 1, "a file that is wrong is no reason to ask"
    assert "secret:" not in given.out
    assert len(asked.asked) == 2


def test_progress_is_quiet_when_asked_and_told_otherwise(edge: Edge) -> None:
    command = edge(script([start(1, 3), page(1), page(2, flags=[page_pb2.PAGE_FLAG_OCR]), failed(3), end(2)]))
    assert "3 of 3" in (told := command("extract", DOCUMENT).err)
    assert "1 failed, 1 by OCR" in told
    quiet = command("extract", DOCUMENT, "--quiet")
    assert quiet.err.startswith("PAGES_FAILED: 1 page could not be read: 3 (PAGE_CORRUPT)")
    shown = command.at_terminal("extract", DOCUMENT, "-o", "/dev/null").out
    assert "reading pages" in shown
    assert "1 failed" in shown


def test_pages_are_not_gathered(edge: Edge) -> None:
    def peak_kib(pages: int) -> int:
        body: list[Answer] = [page(number, "x" * 500_000) for number in range(1, pages + 1)]
        command = edge(script([start(1, pages), *body, end(pages)]))
        program = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        run = ["-m", "pagemesh_cli", "extract", DOCUMENT, "-o", "/dev/null", "--format", "json"]
        result = subprocess.run(
            [sys.executable, "-c", program, sys.executable, *run],
            env=dict(command.environment),
            check=True,
            capture_output=True,
            timeout=100,
        )
        return int(result.stdout)

    assert peak_kib(400) < peak_kib(20) + 100_000, "two hundred megabytes of pages, less what gRPC reads ahead"


def test_the_largest_page_of_a_service_is_taken() -> None:
    assert MAX_MESSAGE_BYTES == server.MAX_MESSAGE_BYTES
