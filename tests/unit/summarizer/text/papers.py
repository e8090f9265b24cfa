"""Pages for tests: made of words with boxes, or read from real files."""

import os
from pathlib import Path

import pytest

from services.summarizer.domain.values import Box, Chunk, Length, Options, Page, Prompt, Stage, Style, Word

CORPUS = Path(os.environ.get("PAGEMESH_CORPUS", "../shared/corpus"))
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="PAGEMESH_CORPUS names no folder of real files")


def page(number: int, *lines: str) -> Page:
    """A page of lines, each word 9 points wide and 10 high, in one block."""
    words = tuple(
        Word(text, Box(10.0 * column, 12.0 * line, 10.0 * column + 9, 12.0 * line + 10), block=0, line=line)
        for line, row in enumerate(lines)
        for column, text in enumerate(row.split())
    )
    return Page(number, "\n".join(lines), words)


def pdf_pages(path: Path) -> list[Page]:
    """All pages of a PDF, as the parser sees them."""
    import pymupdf

    with pymupdf.open(path) as document:
        return [
            Page(
                number,
                found.get_text(),
                tuple(Word(w[4], Box(*w[:4]), block=w[5], line=w[6]) for w in found.get_text("words")),
            )
            for number, found in enumerate(document, start=1)
        ]


def chunk(*texts: str, index: int = 0) -> Chunk:
    """A chunk of one page for each text."""
    spans, offset = [], 0
    for number, text in enumerate(texts, start=1):
        end = offset + len(text) + (2 if number < len(texts) else 0)
        spans.append((offset, end, number))
        offset = end
    return Chunk(index, "\n\n".join(texts), tuple(spans))


def map_prompt(
    part: Chunk, *, most: int = 7, language: str = "", focus: str = "", audience: str = "", model: str = "lexrank"
) -> Prompt:
    options = Options(Length.MEDIUM, Style.PARAGRAPH, language, focus, f"any/{model}", audience)
    return Prompt(Stage.MAP, options, model, most, chunk=part)
