"""What was read in the picture of a page, written as `pagemesh.common.v1.Page` within the contract's bounds."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.page_bounds import MAX_WORD_CHARS, MAX_WORDS
from services.extractor.domain.pages import Page, PageFlag
from services.extractor.domain.recognised import Box, PlacedWord, TextBlock

_MARKUP = re.compile(r"[\\`*_{}\[\]<>|~]|^(?:#+|[+-]|\d+[.)])(?=\s|$)")
_BULLET = re.compile(r"[\u2022\u2023\u25aa\u25cf\u25e6] ")
_OF_TEXT = (
    page_pb2.PAGE_FLAG_NO_TEXT,
    page_pb2.PAGE_FLAG_TRUNCATED,
    page_pb2.PAGE_FLAG_OCR,
    page_pb2.PAGE_FLAG_HIDDEN_TEXT,
)
_DOMAIN_OF_TEXT = PageFlag.NO_TEXT | PageFlag.TRUNCATED | PageFlag.OCR | PageFlag.HIDDEN_TEXT


class RecognisedPageWriter:
    """Implements the port `PageWriter`. `guess_language` answers a code of ISO 639-1, or nothing."""

    def __init__(self, *, guess_language: Callable[[str], str]) -> None:
        self._guess_language = guess_language

    def write(
        self, parsed: Page, blocks: Sequence[TextBlock], *, width_px: int, height_px: int, complete: bool
    ) -> Page:
        """See the port."""
        page = page_pb2.Page.FromString(parsed.content)
        for field in ("text", "blocks", "words", "markdown", "tables", "language"):
            page.ClearField(field)
        scale = page.width_pt / max(width_px, 1), page.height_pt / max(height_px, 1)
        texts = [_add_block(page, block, scale) for block in blocks]
        page.text = "".join(texts)
        page.markdown = "\n\n".join(map(_markdown, blocks))
        page.language = self._guess_language(page.text)
        complete = complete and len(page.words) < MAX_WORDS
        kept = [flag for flag in page.flags if flag not in _OF_TEXT]
        flags = (parsed.flags & ~_DOMAIN_OF_TEXT) | PageFlag.OCR
        kept.append(page_pb2.PAGE_FLAG_OCR)
        if not page.words:
            flags |= PageFlag.NO_TEXT
            kept.append(page_pb2.PAGE_FLAG_NO_TEXT)
        if not complete:
            flags |= PageFlag.TRUNCATED
            kept.append(page_pb2.PAGE_FLAG_TRUNCATED)
        page.ClearField("flags")
        page.flags.extend(kept)
        return replace(parsed, content=page.SerializeToString(), flags=flags)


def _add_block(page: page_pb2.Page, block: TextBlock, scale: tuple[float, float]) -> str:
    """Adds a block and its words; answers its text."""
    number = len(page.blocks)
    for index, line in enumerate(block.lines):
        for word in line[: MAX_WORDS - len(page.words)]:
            page.words.add(text=word.text[:MAX_WORD_CHARS], box=_scaled(word.box, scale), block=number, line=index)
    text = "".join(_text(line) + "\n" for line in block.lines)
    boxes = [word.box for line in block.lines for word in line]
    around = Box(
        min(box.x0 for box in boxes),
        min(box.y0 for box in boxes),
        max(box.x1 for box in boxes),
        max(box.y1 for box in boxes),
    )
    page.blocks.add(box=_scaled(around, scale), text=text)
    return text


def _text(line: Sequence[PlacedWord]) -> str:
    return " ".join(word.text for word in line)


def _scaled(box: Box, scale: tuple[float, float]) -> page_pb2.BoundingBox:
    across, down = scale
    return page_pb2.BoundingBox(x0=box.x0 * across, y0=box.y0 * down, x1=box.x1 * across, y1=box.y1 * down)


def _markdown(block: TextBlock) -> str:
    lines = [_markdown_line(_text(line)) for line in block.lines]
    if block.heading:
        return "#" * block.heading + " " + " ".join(lines)
    return "\n".join(lines)


def _markdown_line(text: str) -> str:
    item = _BULLET.match(text)
    if item is not None:
        return "- " + _markdown_line(text[item.end() :])
    return _MARKUP.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    """A number at the beginning of a line is a list's for what follows it: `1\\.`."""
    text = found.group()
    return text[:-1] + "\\" + text[-1] if text[0].isdigit() else "\\" + text
