"""`pagemesh documents`, `upload` and `search` where a test must choose the answers."""

from pathlib import Path

import pytest

from pagemesh.common.v1 import money_pb2, page_pb2
from pagemesh.extractor.v1 import document_pb2, search_pb2, vectors_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh.summarizer.v1 import embedding_pb2, summary_pb2
from tests.stack.conftest import Edge
from tests.stack.scripted_edge import Answer, Script, refusal

GONE = refusal("NOT_FOUND", "DOCUMENT_NOT_FOUND")
AWAY = refusal("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")


def name(number: int) -> str:
    return f"documents/{number:032x}"


def document(number: int, display_name: str = "report.pdf") -> document_pb2.Document:
    made = document_pb2.Document(
        name=name(number), display_name=display_name, size_bytes=1234, retention=document_pb2.RETENTION_KEPT
    )
    made.expire_time.FromJsonString("2027-01-31T08:00:00Z")
    return made


def receipt(number: int) -> pb.DeleteDocumentResponse:
    return pb.DeleteDocumentResponse(
        receipt=document_pb2.DeletionReceipt(
            document=name(number), sha256="ab" * 32, pages_deleted=7, digest="cd" * 32, cause="REQUESTED"
        )
    )


def test_lists_are_followed_up_to_the_limit(edge: Edge) -> None:
    parts: list[list[Answer]] = [
        [pb.ListDocumentsResponse(documents=[document(1), document(2)], next_page_token="more")],
        [pb.ListDocumentsResponse(documents=[document(3)], next_page_token="rest")],
    ]
    asked = Script(extractor={"ListDocuments": parts})
    command = edge(asked)
    answer = command("documents", "list", "--limit", "3")
    assert [line.split()[0] for line in answer.out.splitlines()] == ["document", name(1), name(2), name(3)]
    assert "2027-01-31T08:00:00Z" in answer.out
    assert "kept" in answer.out
    assert "there are more" in answer.err
    assert [(request.page_size, request.page_token) for request in asked.asked_of("ListDocuments")] == [
        *((3, ""), (1, "more"))
    ]


def test_a_narrow_terminal_gets_lines_in_the_place_of_a_table(edge: Edge) -> None:
    command = edge(Script(extractor={"ListDocuments": [[pb.ListDocumentsResponse(documents=[document(1)])]]}))
    shown = command.at_terminal("documents", "list", columns=80).out
    assert "file report.pdf, stored -, kept kept, until 2027-01-31T08:00:00Z, bytes 1,234, pages -" in shown
    assert "file report.pdf" not in command.at_terminal("documents", "list").out


def test_names_cannot_steer_the_terminal(edge: Edge) -> None:
    nasty = document(1, "a\x1b[2J\nb\u202ec [bold]")
    answers: dict[str, list[list[Answer]]] = {
        "ListDocuments": [[pb.ListDocumentsResponse(documents=[nasty])]],
        "GetDocument": [[pb.GetDocumentResponse(document=nasty)]],
        "SearchPages": [[pb.SearchPagesResponse(hits=[hit("x", display_name=nasty.display_name)])]],
    }
    command = edge(Script(extractor=answers))
    for words in (("documents", "list"), ("documents", "show", name(1)), ("search", "x")):
        shown = command.at_terminal(*words)
        assert "a\ufffd[2J b\ufffdc [bold]" in shown.out
        assert "\x1b[2J" not in shown.out
        assert not {"\x1b", "\u202e"} & set(command(*words, "--json").out)


def test_an_erasure_is_asked_about_at_a_terminal_alone(edge: Edge) -> None:
    asked = Script(extractor={"DeleteDocument": [[receipt(1)]]})
    command = edge(asked)
    refused = command.at_terminal("documents", "delete", name(1), replies={"for good?": "n"})
    assert refused.code == 130
    assert asked.asked == []
    agreed = command.at_terminal("documents", "delete", name(1), replies={"for good?": "y"})
    assert agreed.code == 0
    assert "stored pages 7" in agreed.out
    assert f"digest {'cd' * 32}" in agreed.out
    assert command.at_terminal("documents", "delete", name(1), "--yes").code == 0
    assert command("documents", "delete", name(1), "--json").json["pagesDeleted"] == 7
    assert len(asked.asked) == 3


def test_what_fails_does_not_keep_the_others(edge: Edge) -> None:
    asked = Script(extractor={"DeleteDocument": [[receipt(1)], [GONE], [receipt(3)]]})
    answer = edge(asked)("documents", "delete", name(1), name(2), name(3), name(1))
    assert answer.code == 8
    assert "stored pages 7" in answer.out
    assert f"{name(2)}: DOCUMENT_NOT_FOUND" in answer.err
    assert [request.name for request in asked.asked_of("DeleteDocument")] == [name(1), name(2), name(3)]
    nobody = Script(extractor={"DeleteDocument": [[GONE]]})
    assert edge(nobody)("documents", "delete", name(1), name(2)).code == 5
    away = Script(extractor={"DeleteDocument": [[AWAY]]})
    assert edge(away)("documents", "delete", name(1), name(2)).code == 3
    assert len(away.asked) == 1, "the next one would fare no better"


@pytest.mark.parametrize("verb", ["show", "keep", "delete"])
def test_what_is_no_name_of_a_document_is_told_before_anything_is_done(edge: Edge, verb: str) -> None:
    asked = Script()
    answer = edge(asked)("documents", verb, name(1), "report.pdf")
    assert (answer.code, answer.out) == (2, "")
    assert "BAD_NAME: 'report.pdf' is no name of a document." in answer.err
    assert "documents list" in answer.err
    assert not any(asked.asked_of(method) for method in ("GetDocument", "UpdateDocument", "DeleteDocument"))


@pytest.mark.parametrize(
    ("options", "retention", "until"),
    [
        ((), document_pb2.RETENTION_KEPT, ""),
        (("--until", "2027-01-31"), document_pb2.RETENTION_KEPT, "2027-01-31T00:00:00Z"),
        (("--temporary",), document_pb2.RETENTION_TEMPORARY, ""),
        (("--ephemeral",), document_pb2.RETENTION_EPHEMERAL, ""),
    ],
)
def test_keeping_says_how_long(edge: Edge, options: tuple[str, ...], retention: int, until: str) -> None:
    asked = Script(extractor={"UpdateDocument": [[pb.UpdateDocumentResponse(document=document(1))]]})
    answer = edge(asked)("documents", "keep", name(1), *options)
    assert (answer.code, answer.out) == (0, f"{name(1)}  kept until 2027-01-31T08:00:00Z\n")
    request = asked.asked_of("UpdateDocument")[0]
    assert request.document.retention == retention
    assert list(request.update_mask.paths) == (["retention", "expire_time"] if until else ["retention"])
    assert not until or request.document.expire_time.ToJsonString() == until


def test_keeping_takes_one_answer_to_how_long(edge: Edge) -> None:
    asked = Script(extractor={"UpdateDocument": [[pb.UpdateDocumentResponse(document=document(1))]]})
    command = edge(asked)
    assert command("documents", "keep", name(1), "--for", "30d").code == 0
    ahead = asked.asked_of("UpdateDocument")[0].document.expire_time.ToDatetime()
    assert ahead.year >= 2025
    assert command("documents", "keep", name(1), "--for", "30d", "--temporary").code == 2
    assert command("documents", "keep", name(1), "--for", "soon").code == 2
    assert command("documents", "keep", name(1), "--until", "12h").code == 2, "that is how the past is written"
    assert len(asked.asked) == 1


def uploaded(number: int) -> list[Answer]:
    return [pb.UploadDocumentResponse(document=document(number), created=True)]


def test_files_and_folders_are_uploaded_one_after_the_other(edge: Edge, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for path in ("b.pdf", "a.PNG", "notes.txt", ".c.pdf", "deep/d.jpeg", ".hidden/e.pdf"):
        (folder / path).write_bytes(b"x" * 10)
    (tmp_path / "named.txt").write_bytes(b"y" * 600_000)
    busy = refusal("RESOURCE_EXHAUSTED", "TOO_MANY_UPLOADS", retry_s=0.05)
    bad = refusal("INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE")
    asked = Script(extractor={"UploadDocument": [uploaded(1), [busy], uploaded(2), [bad], uploaded(4)]})
    answer = edge(asked)(*("upload", str(tmp_path / "named.txt"), str(folder), "--keep-until", "2027-01-31T08:00:00Z"))
    assert answer.code == 8
    assert answer.out.splitlines() == [name(1), name(2), name(4)]
    assert "deep/d.jpeg" not in answer.out
    assert "UNSUPPORTED_MEDIA_TYPE" in answer.err
    firsts = [messages[0] for messages in asked.asked_of("UploadDocument")]
    assert [first.display_name for first in firsts] == ["named.txt", "a.PNG", "a.PNG", "b.pdf", "d.jpeg"]
    assert {first.retention for first in firsts} == {document_pb2.RETENTION_KEPT}
    assert {first.expire_time.ToJsonString() for first in firsts} == {"2027-01-31T08:00:00Z"}
    pieces = asked.asked_of("UploadDocument")[0]
    assert sum(len(piece.content.data) for piece in pieces) == 600_000
    assert [bool(piece.display_name or piece.retention) for piece in pieces] == [True, False, False]


def test_an_upload_that_nobody_can_take_ends_the_rest(edge: Edge, tmp_path: Path) -> None:
    for file in ("a.pdf", "b.pdf"):
        (tmp_path / file).write_bytes(b"x")
    asked = Script(extractor={"UploadDocument": [[AWAY]]})
    assert edge(asked)("upload", str(tmp_path)).code == 3
    assert len(asked.asked) == 1
    (tmp_path / "empty").mkdir()
    assert edge(asked)("upload", str(tmp_path / "empty")).code == 2
    assert edge(asked)("upload", str(tmp_path), "--retention", "ephemeral", "--keep-until", "2027-01-31").code == 2


def test_a_name_that_is_no_text_is_sent_as_one(edge: Edge, tmp_path: Path) -> None:
    path = tmp_path / "b\udcff\u00fc.pdf"
    path.write_bytes(b"x")
    asked = Script(extractor={"UploadDocument": [uploaded(1)]})
    answer = edge(asked)("upload", str(path))
    assert answer.code == 0, answer
    assert asked.asked_of("UploadDocument")[0][0].display_name == "b?\u00fc.pdf"


def test_a_file_cannot_steer_the_terminal(edge: Edge, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J[bold]\nb.pdf"
    path.write_bytes(b"x" * 1000)
    command = edge(Script(extractor={"UploadDocument": [uploaded(1)]}))
    shown = command.at_terminal("upload", str(path)).out
    assert "uploading a\ufffd[2J[bold] b.pdf" in shown
    assert "\x1b[2J[" not in shown
    missing = command.at_terminal("upload", f"{path}.none").out
    assert "\x1b[2J[" not in missing


def hit(text: str, *, display_name: str = "report.pdf", page: int = 3, score: float = 0.5) -> search_pb2.SearchHit:
    found = search_pb2.SearchHit(document=name(1), display_name=display_name, page=page, score=score, language="en")
    snippet = found.snippets.add(text=text)
    at = text.find("engine")
    if at >= 0:
        snippet.highlights.add(start=at, end=at + 6)
        found.boxes.append(page_pb2.BoundingBox(x0=1, y0=2, x1=3, y1=4))
    return found


def test_search_shows_what_matched(edge: Edge) -> None:
    answers: list[list[Answer]] = [
        [pb.SearchPagesResponse(hits=[hit("\U0001f600\x07 of an\nengine here")] * 100, next_page_token="more")],
        [pb.SearchPagesResponse(hits=[hit("last", page=9)])],
    ]
    asked = Script(extractor={"SearchPages": answers})
    command = edge(asked)
    words = ("search", "engine", '"of an"', "--document", name(1), "--language", "en", "--limit", "150")
    shown = command.at_terminal(*words).out
    assert "\U0001f600\ufffd of an \x1b[1;33mengine\x1b[0m here" in shown
    assert "101. " in shown
    assert "page 9" in shown
    first, second = asked.asked_of("SearchPages")
    assert first.query == 'engine "of an"'
    assert (list(first.documents), list(first.languages)) == ([name(1)], ["en"])
    assert [(request.page_size, request.page_token) for request in (first, second)] == [(100, ""), (50, "more")]
    piped = edge(Script(extractor={"SearchPages": answers[1:]}))("search", "last")
    assert "\x1b" not in piped.out
    assert piped.out.splitlines() == [f"  1. report.pdf, page 9  0.5  {name(1)}", "     last"]


def test_a_search_by_meaning_says_where_it_went_by_words_alone(edge: Edge) -> None:
    found = pb.SearchPagesResponse(hits=[hit("last")], degraded=True, degraded_reason="NOTHING_EMBEDDED")
    asked = Script(extractor={"SearchPages": [[found]]})
    answer = edge(asked)("search", "--hybrid", "engine")
    assert "NOTHING_EMBEDDED" in answer.err
    assert asked.asked_of("SearchPages")[0].mode == vectors_pb2.SEARCH_MODE_HYBRID
    told = edge(asked)("search", "--hybrid", "engine", "--json").json
    assert (told["degraded"], told["degradedReason"]) == (True, "NOTHING_EMBEDDED")


def test_a_document_is_embedded_for_what_it_may_cost(edge: Edge) -> None:
    cost = money_pb2.Money(currency="USD", micros=12)
    done = embedding_pb2.EmbedDocumentResponse(
        model="mistral/m",
        page_count=2,
        passage_count=5,
        failed_pages=[3],
        consumption=summary_pb2.Consumption(provider_calls=1, cost=cost),
    )
    asked = Script(embedded=done)
    answer = edge(asked)("embed", name(1), "--max-cost", "0.05")
    assert answer.out == "2 pages in 5 passages by mistral/m, for 0.000012 USD, 1 page cannot be read\n"
    (request,) = asked.embeddings
    assert (request.document, request.max_cost.micros) == (name(1), 50_000)
    assert edge(asked)("embed", name(1), "--json").json["embedded"]["passageCount"] == 5
    assert not asked.embeddings[1].HasField("max_cost")


def test_search_takes_what_excludes(edge: Edge) -> None:
    asked = Script(extractor={"SearchPages": [[pb.SearchPagesResponse()]]})
    answer = edge(asked)("search", "--since", "2026-01-31", "--", "engine", "-steam")
    assert (answer.code, answer.out) == (0, "")
    assert "nothing was found" in answer.err
    request = asked.asked_of("SearchPages")[0]
    assert request.query == "engine -steam"
    assert request.stored_after.ToJsonString() == "2026-01-31T00:00:00Z"
