"""File names for people."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.extractor.domain.media import MediaType
from services.extractor.domain.names import clean_display_name
from services.runtime.errors import InvalidArgument


@pytest.mark.parametrize(
    ("given_name", "wanted"),
    [
        ("report.pdf", "report.pdf"),
        ("Q3 report (final).pdf", "Q3_report__final_.pdf"),
        ("Résumé.pdf", "Resume.pdf"),
        ("報告.pdf", "__.pdf"),
        ("C:\\scans\\a.pdf", "C__scans_a.pdf"),
        ("dir/a.pdf", "dir_a.pdf"),
        ("Node.js.pdf", "Node.js.pdf"),
        ("example.com.pdf", "example.com.pdf"),
        ("report", "report"),
        ("", "document.pdf"),
        ("\u0301", "document.pdf"),
        ("v1..final.pdf", "v1.final.pdf"),
        (".hidden.pdf", "hidden.pdf"),
        (".bashrc", "bashrc"),
        ("and so on....pdf", "and_so_on.pdf"),
        ("the end...", "the_end"),
        ("dots \u2026.pdf", "dots_.pdf"),
    ],
)
def test_names_are_made_harmless(given_name: str, wanted: str) -> None:
    assert clean_display_name(given_name, MediaType.PDF) == wanted


def test_an_empty_name_follows_the_type() -> None:
    assert clean_display_name("", MediaType.JPEG) == "document.jpg"


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "../../etc/passwd",
        "a/../b.pdf",
        "..\\b.pdf",
        "\u2025/b.pdf",
        ".con",
        "page.html...",
        "a" * 248 + ".exe" + ".",
        "a" * 251 + ".exe" + "x" * 20,
        "invoice.pdf.exe",
        "shell.php.pdf",
        "run.BAT",
        "page.html",
        "nul",
        "CON.pdf",
        "a\x00.pdf",
        "a\n.pdf",
        "invoice\u202efdp.exe",
        "zero\u200bwidth.pdf",
    ],
)
def test_names_that_hide_something_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        clean_display_name(name, MediaType.PDF)
    assert refused.value.reason == "SUSPICIOUS_FILE_NAME"
    assert [violation.field for violation in refused.value.fields] == ["display_name"]


def test_a_long_name_keeps_its_extension() -> None:
    name = clean_display_name("a" * 300 + ".pdf", MediaType.PDF)
    assert len(name) == 255
    assert name.endswith("a.pdf")


def test_a_name_that_grows_when_its_letters_are_spelled_out_stays_within_the_limit() -> None:
    assert len(clean_display_name("\ufdfa" * 255, MediaType.PDF)) == 255


@given(st.text(max_size=300))
def test_whatever_is_let_through_keeps_the_rule(name: str) -> None:
    try:
        cleaned = clean_display_name(name, MediaType.PNG)
    except InvalidArgument:
        return
    assert re.fullmatch(r"[a-zA-Z0-9._-]{1,255}", cleaned)
    assert not cleaned.startswith(".")
    assert ".." not in cleaned
