"""How the events of an extraction are written down, one after the other: text, markdown, JSON."""

import enum
from pathlib import Path
from typing import Any, Protocol

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh_cli.output import json_text, message_json


class PageFormat(enum.StrEnum):
    """How pages are written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"
    NDJSON = "ndjson"

    @property
    def is_json(self) -> bool:
        return self in (PageFormat.JSON, PageFormat.NDJSON)

    @property
    def suffix(self) -> str:
        """Of a file that holds one page."""
        return _SUFFIXES[self]


_SUFFIXES = {
    PageFormat.TEXT: ".txt",
    PageFormat.MARKDOWN: ".md",
    PageFormat.JSON: ".json",
    PageFormat.NDJSON: ".ndjson",
}


def format_of(path: Path | None) -> PageFormat:
    """What the name of a file asks for; text where it says nothing."""
    suffix = path.suffix.lower() if path is not None else ""
    return next((known for known, ending in _SUFFIXES.items() if ending == suffix), PageFormat.TEXT)


class Writing(Protocol):
    """The text of one stream of pages, piece by piece."""

    def event(self, event: pb.ExtractPagesResponse) -> str:
        """What the event adds."""

    def finish(self, *, complete: bool) -> str:
        """What is missing at the end; `complete`: nothing broke off."""


def writing(form: PageFormat, document: str) -> Writing:
    """How to write the pages of the document into one stream."""
    if form is PageFormat.TEXT:
        return _Text()
    if form is PageFormat.MARKDOWN:
        return _Markdown()
    return Json(document) if form is PageFormat.JSON else _Lines()


def page_text(form: PageFormat, page: page_pb2.Page) -> str:
    """One page as a file of its own."""
    if form is PageFormat.TEXT:
        return f"{page.text.rstrip()}\n"
    if form is PageFormat.MARKDOWN:
        return f"{page.markdown.rstrip()}\n"
    return json_text(message_json(page)) + "\n"


class _Text:
    """Each page ends with a form feed; one that could not be read is empty, so that the others keep their places."""

    def event(self, event: pb.ExtractPagesResponse) -> str:
        if event.HasField("page"):
            return page_text(PageFormat.TEXT, event.page) + "\f"
        return "\f" if event.HasField("failed_page") else ""

    def finish(self, *, complete: bool) -> str:
        return ""


class _Markdown:
    """Pages with an empty line between them; one that could not be read is a comment."""

    def __init__(self) -> None:
        self._begun = False

    def event(self, event: pb.ExtractPagesResponse) -> str:
        if event.HasField("page"):
            text = page_text(PageFormat.MARKDOWN, event.page)
        elif event.HasField("failed_page"):
            text = f"<!-- page {event.failed_page.number} could not be read: {event.failed_page.reason} -->\n"
        else:
            return ""
        if not text.strip():
            return ""
        gap = "\n" if self._begun else ""
        self._begun = True
        return gap + text

    def finish(self, *, complete: bool) -> str:
        return ""


class _Lines:
    """One event a line, as the HTTP API sends them."""

    def event(self, event: pb.ExtractPagesResponse) -> str:
        return json_text(message_json(event)) + "\n"

    def finish(self, *, complete: bool) -> str:
        return ""


class Json:
    """One object: `document`, what `start` says of it, `pages`, and at the end `failedPages`, `flags`, `complete`.

    It is whole wherever the pages break off.
    """

    def __init__(self, document: str, *, pages: bool = True) -> None:
        """Without `pages` it is what is known of the document, for where each page has a file of its own."""
        self._document = document
        self._pages = pages
        self._begun = False
        self._first = True
        self._failed: list[dict[str, Any]] = []
        self._flags: list[str] = []

    def event(self, event: pb.ExtractPagesResponse) -> str:
        kind = event.WhichOneof("event")
        if kind == "start":
            self._note_flags(event.start.flags)
            return self._begin(event.start)
        if kind == "failed_page":
            self._failed.append(message_json(event.failed_page))
        elif kind == "end":
            self._note_flags(event.end.flags)
        elif kind == "page" and self._pages:
            gap = "\n" if self._first else ",\n"
            self._first = False
            return gap + json_text(message_json(event.page))
        return ""

    def finish(self, *, complete: bool) -> str:
        if not self._begun:
            return ""
        tail = json_text({"failedPages": self._failed, "flags": self._flags, "complete": complete})
        return f"{']' if self._pages else ''}, {tail[1:]}\n"

    def _begin(self, start: extraction_pb2.ExtractionStart) -> str:
        if self._begun:
            return ""
        self._begun = True
        head: dict[str, Any] = {"document": self._document, "pageCount": start.page_count}
        if start.HasField("metadata"):
            head["metadata"] = message_json(start.metadata)
        if start.outline:
            head["outline"] = [message_json(item) for item in start.outline]
        return json_text(head)[:-1] + (', "pages": [' if self._pages else "")

    def _note_flags(self, flags: Any) -> None:
        names = map(extraction_pb2.DocumentFlag.Name, flags)
        self._flags += [name for name in names if name not in self._flags]
