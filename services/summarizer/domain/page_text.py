"""A page's text and words out of the Markdown that a model made of its picture.

Models that read pictures write Markdown. For quotes only words count: what belongs to Markdown and not to the page is
taken out, so that a quote of the text is a quote of the page. Nothing of it is trusted: it is text of the document,
with all that a hostile one may hold (see suspects.py, prompts.py and plain_output.py for what is done about that).
"""

import re
from collections.abc import Iterator

from services.summarizer.domain.values import Box, Word

MAX_MARKDOWN_CHARS = 400_000
"""Twice what a page may hold: the rest of a longer answer is not even looked at."""

_NOWHERE = Box(0.0, 0.0, 0.0, 0.0)
# Characters that nobody sees, or that would end a line or a page elsewhere: NUL, other controls, lone surrogates.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_IMAGE = re.compile(r"!\[[^\[\]\n]{0,500}\]\([^()\n]{0,2000}\)")
_LINK = re.compile(r"\[([^\[\]\n]{0,500})\]\([^()\n]{0,2000}\)")
_BREAK = re.compile(r"<br\s{0,5}/?>|</(?:tr|p|h[1-6]|li|table)>", re.IGNORECASE)
_CELL = re.compile(r"</t[dh]>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,500}>")
_RULE = re.compile(r"\s*(?:\|?\s*:?-{3,}:?\s*)(?:\|\s*:?-{3,}:?\s*)*\|?\s*|\s*(?:[*_]\s*){3,}")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+")
_EMPHASIS = re.compile(r"(?<!\\)(?:\*{1,3}|(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w)|`{1,3}|~~)")
_BAR = re.compile(r"(?<!\\)\|")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!|<>~$&%-])")


def page_text(markdown: str) -> str:
    """The words of the page, line by line, at most MAX_MARKDOWN_CHARS."""
    text = _CONTROLS.sub(" ", markdown[:MAX_MARKDOWN_CHARS].replace("\r\n", "\n").replace("\r", "\n"))
    text = _LINK.sub(r"\1", _IMAGE.sub("", text))
    text = _TAG.sub("", _CELL.sub("  ", _BREAK.sub("\n", text)))
    lines = [_line(line) for line in text.split("\n") if not _RULE.fullmatch(line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def words_of(text: str) -> tuple[Word, ...]:
    """The words of such a text, without boxes: nobody measured where they stand. An empty line parts two blocks."""
    return tuple(_words(text))


def _line(line: str) -> str:
    line = _EMPHASIS.sub("", _HEADING.sub("", line, count=1))
    cells = [" ".join(cell.split()) for cell in _BAR.split(line)] if "|" in line else [line.strip()]
    return _ESCAPE.sub(r"\1", "  ".join(cell for cell in cells if cell))


def _words(text: str) -> Iterator[Word]:
    block = line = 0
    for written in text.split("\n"):
        if not written.strip():
            block, line = block + 1, 0
            continue
        for word in written.split():
            yield Word(word, _NOWHERE, block, line)
        line += 1
