"""What the extractor does with pages, through the command and a real stack: formats, pictures, passwords, search."""

import json
from pathlib import Path

import pymupdf
import pytest

from pagemesh_cli.stack.process import wait_until
from tests.conftest import RunningStack
from tests.stack.running import Command

WORD = "Quagmire"
SECRET = "correct horse"


@pytest.fixture(scope="module")
def pagemesh(stack: RunningStack) -> Command:
    """Of a tenant of its own, so that lists have what these tests made."""
    return Command.on(stack.data.root, PAGEMESH_API_KEY=stack.new_tenant("verbs"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pages; the second has a heading, the third a table, the fourth a picture."""
    document = pymupdf.open()
    for number in range(1, 7):
        page = document.new_page()
        page.insert_text((72, 100), f"Plain words of page {number} about the {WORD.lower() if number == 5 else 'sea'}.")
        if number == 2:
            page.insert_text((72, 60), "A heading in large letters", fontsize=26, fontname="hebo")
        if number == 3:
            draw_table(page)
        if number == 4:
            picture = pymupdf.Pixmap(pymupdf.csRGB, pymupdf.IRect(0, 0, 64, 48))
            picture.clear_with(120)
            page.insert_image(pymupdf.Rect(72, 200, 264, 344), pixmap=picture)
    document.set_metadata({"title": "Verbs"})
    path = tmp_path_factory.mktemp("made") / "report.pdf"
    document.save(path)
    return path


def draw_table(page: pymupdf.Page) -> None:
    for row, cells in enumerate((("Item", "Price"), ("Apple", "3"), ("Pear", "4"))):
        for column, text in enumerate(cells):
            box = pymupdf.Rect(72 + 120 * column, 200 + 30 * row, 192 + 120 * column, 230 + 30 * row)
            page.draw_rect(box)
            page.insert_text((box.x0 + 8, box.y1 - 10), text)


@pytest.fixture(scope="module")
def document(pagemesh: Command, report: Path) -> str:
    answer = pagemesh("upload", str(report))
    assert answer.code == 0, answer.err
    return answer.out.strip()


def test_ranges_are_joined(pagemesh: Command, document: str) -> None:
    answer = pagemesh("extract", document, "--pages", "6,2-3,3")
    assert answer.code == 0, answer.err
    pages = answer.out.split("\f")
    assert [text.strip()[:30] for text in pages] == [
        *("Plain words of page 2 about th", "Plain words of page 3 about th", "Plain words of page 6 about th", "")
    ]
    behind = pagemesh("extract", document, "--pages", "1,40")
    assert behind.code == 2
    assert behind.out.startswith("Plain words of page 1")
    assert "PAGE_OUT_OF_RANGE" in behind.err


def test_markdown_has_headings_and_tables(pagemesh: Command, document: str, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    assert pagemesh("extract", document, "--format", "markdown", "-o", f"{folder}/").code == 0
    assert sorted(path.name for path in folder.iterdir()) == [f"000{number}.md" for number in range(1, 7)]
    assert "# A heading in large letters" in (folder / "0002.md").read_text()
    assert "| Apple | 3 |" in (folder / "0003.md").read_text()


def test_json_is_whole_pages(pagemesh: Command, document: str, tmp_path: Path) -> None:
    goal = tmp_path / "report.json"
    answer = pagemesh("extract", document, "--parts", "all", "-o", str(goal), "--json")
    assert (answer.code, answer.json["pages"]) == (0, 6), answer.err
    whole = json.loads(goal.read_text())
    assert whole["metadata"]["title"] == "Verbs"
    assert whole["complete"] is True
    assert whole["pages"][0]["words"][0]["box"]["x1"] > 72
    assert whole["pages"][2]["tables"][0]["rows"][1]["cells"] == ["Apple", "3"]
    assert [len(page["images"]) for page in whole["pages"]] == [0, 0, 0, 1, 0, 0]


def test_pictures_are_taken_out(pagemesh: Command, document: str, tmp_path: Path) -> None:
    answer = pagemesh("extract", document, "--images", str(tmp_path / "pictures"), "-o", str(tmp_path / "x.txt"))
    assert answer.code == 0, answer.err
    (picture,) = (tmp_path / "pictures").iterdir()
    assert picture.stem == "0004-00"
    taken = pymupdf.Pixmap(str(picture))
    assert (taken.width, taken.height) == (64, 48)


def test_pages_are_drawn(pagemesh: Command, document: str, tmp_path: Path) -> None:
    goal = tmp_path / "page.png"
    answer = pagemesh("render", document, "--page", "4", "--dpi", "72", "-o", str(goal))
    assert answer.code == 0, answer.err
    drawn = pymupdf.Pixmap(str(goal))
    assert (drawn.width, drawn.height) == (595, 842)
    assert pagemesh("render", document, "--pages", "5-", "--dpi", "36", "-o", str(tmp_path / "drawn")).code == 0
    assert [path.name for path in sorted((tmp_path / "drawn").iterdir())] == ["0005.jpg", "0006.jpg"]
    behind = pagemesh("render", document, "--page", "7", "-o", str(tmp_path / "none.png"), "--json")
    assert (behind.code, behind.error["reason"]) == (2, "PAGE_OUT_OF_RANGE")
    assert not (tmp_path / "none.png").exists()


def test_search_finds_the_page(pagemesh: Command, document: str) -> None:
    pagemesh("extract", document, "-o", "/dev/null")
    assert wait_until(lambda: pagemesh("search", WORD, "--json").json["hits"] != [], timeout_s=30, poll_s=0.5)
    (hit,) = pagemesh("search", WORD, "--json").json["hits"]
    assert (hit["document"], hit["page"], hit["displayName"]) == (document, 5, "report.pdf")
    marked = hit["snippets"][0]
    assert [marked["text"][at["start"] : at["end"]].lower() for at in marked["highlights"]] == [WORD.lower()]
    shown = pagemesh("search", "plain", "words", "--limit", "3", "--document", document)
    assert shown.out.count("report.pdf, page ") == 3
    assert "there are more" in shown.err
    assert pagemesh("search", "nothingofthekind", "--json").json["hits"] == []


def test_an_encrypted_document_wants_its_password(pagemesh: Command, report: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pdf"
    pymupdf.open(report).save(locked, encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw=SECRET, owner_pw="other")
    refused = pagemesh("extract", str(locked))
    assert refused.code == 1
    assert "DOCUMENT_ENCRYPTED" in refused.err
    assert "--password-file" in refused.err
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    opened = pagemesh("extract", str(locked), "--password-file", str(tmp_path / "secret"))
    assert opened.code == 0, opened.err
    assert opened.out.startswith("Plain words of page 1")
    asked = pagemesh.at_terminal(
        *("extract", str(locked), "--pages", "2"),
        replies={"Password of the document: ": "wrong", "That is not the password. Another: ": SECRET},
    )
    assert asked.code == 0, asked
    assert "Plain words of page 2" in asked.out
    assert SECRET not in asked.out


def test_documents_are_kept_and_erased(pagemesh: Command, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(2):
        page = pymupdf.open()
        page.new_page().insert_text((72, 72), f"A document that goes, {number}.")
        page.save(folder / f"goes{number}.pdf")
    names = pagemesh("upload", str(folder), "--retention", "kept").out.split()
    assert len(names) == 2
    listed = {found["name"]: found for found in pagemesh("documents", "list", "--json").json["documents"]}
    assert {listed[name]["retention"] for name in names} == {"RETENTION_KEPT"}
    assert {listed[name]["displayName"] for name in names} == {"goes0.pdf", "goes1.pdf"}
    kept = pagemesh("documents", "keep", names[0], "--for", "30d")
    assert kept.code == 0, kept.err
    assert kept.out.startswith(f"{names[0]}  kept until 20")
    assert pagemesh("documents", "keep", names[1], "--temporary", "--json").json["retention"] == "RETENTION_TEMPORARY"
    assert "goes0.pdf" in pagemesh("documents", "show", names[0]).out
    assert pagemesh("extract", names[0]).code == 0
    gone = pagemesh("documents", "delete", *names, "--yes")
    assert gone.code == 0, gone.err
    assert gone.out.count("deletionReceipts/") == 2
    assert pagemesh("documents", "show", names[0], "--json").error["reason"] == "DOCUMENT_NOT_FOUND"
    assert pagemesh("extract", names[0]).code == 5
    receipts = pagemesh("documents", "receipts", "--json").json["receipts"]
    assert {receipt["document"] for receipt in receipts} >= set(names)
    assert {receipt["cause"] for receipt in receipts if receipt["document"] in names} == {"REQUESTED"}


def test_a_scan_is_read(pagemesh: Command, tmp_path: Path) -> None:
    text = pymupdf.open()
    text.new_page(width=400, height=120).insert_text((20, 70), "Recognise these letters", fontsize=28)
    scan = tmp_path / "scan.png"
    text[0].get_pixmap(dpi=150).save(scan)
    off = pagemesh("extract", str(scan), "--ocr", "off")
    assert (off.code, off.out) == (0, "\n\f"), off.err
    assert "1 page without text; `--ocr auto` reads what pictures say" in off.err
    read = pagemesh("extract", str(scan))
    assert read.code == 0, read.err
    assert "Recognise these letters" in " ".join(read.out.split())
    assert "1 by OCR" in read.err
