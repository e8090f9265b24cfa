"""Where the pages of an extraction go: stdout, one file, or a folder with a file for each page."""

from pathlib import Path
from typing import Protocol

from pagemesh.extractor.v1 import extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.new_file import NewFile, make_folder, refuse_to_replace
from pagemesh_cli.output import Output
from pagemesh_cli.page_formats import Json, PageFormat, page_text, writing

_ABOUT = "document.json"


class Target(Protocol):
    """Takes the events of an extraction as they come. Raises Failure where it cannot write."""

    def take(self, event: pb.ExtractPagesResponse) -> None:
        """The next event."""

    def finish(self, *, complete: bool) -> None:
        """Nothing more comes; `complete`: because that was all."""


def target(output: Output, path: Path | None, form: PageFormat, document: str, *, force: bool) -> Target:
    """`path`: a file, an existing folder or one that ends with a slash, or None for stdout."""
    if path is None:
        return _Stdout(output, form, document)
    if path.is_dir():
        return _Folder(path, form, document, force=force)
    return _File(output, path, form, document, force=force)


def folder_or_file(text: str) -> Path | None:
    """What `--output` names; a folder is made where the name ends with a slash. None: stdout. Raises Failure."""
    if text in ("", "-"):
        return None
    path = Path(text)
    if text.endswith("/"):
        make_folder(path)
    return path


class _Stdout:
    def __init__(self, output: Output, form: PageFormat, document: str) -> None:
        self._output = output
        self._writing = writing(form, document)

    def take(self, event: pb.ExtractPagesResponse) -> None:
        self._put(self._writing.event(event))

    def finish(self, *, complete: bool) -> None:
        self._put(self._writing.finish(complete=complete))

    def _put(self, text: str) -> None:
        if text:
            self._output.write(text)


class _File:
    def __init__(self, output: Output, path: Path, form: PageFormat, document: str, *, force: bool) -> None:
        self._output = output
        self._writing = writing(form, document)
        self._file = NewFile(path, force=force)

    def take(self, event: pb.ExtractPagesResponse) -> None:
        self._file.write(self._writing.event(event).encode())

    def finish(self, *, complete: bool) -> None:
        try:
            self._file.write(self._writing.finish(complete=complete).encode())
        except Failure:
            self._file.abandon()
            raise
        if complete:
            self._file.commit()
        elif (partial := self._file.keep_partial()) is not None:
            self._output.note(f"what was read until then is in {partial}", "yellow")


class _Folder:
    """Each page's file is there whole or not at all; what was written stays when the rest breaks off."""

    def __init__(self, path: Path, form: PageFormat, document: str, *, force: bool) -> None:
        if form is PageFormat.NDJSON:
            advice = "Name a file, or use --format json."
            raise Failure(
                "ndjson is one stream, not a file for each page.", ExitCode.USAGE, "BAD_OUTPUT", advice=advice
            )
        self._path = path
        self._form = form
        self._force = force
        self._width = 4
        self._about = Json(document, pages=False) if form is PageFormat.JSON else None
        self._told = ""

    def take(self, event: pb.ExtractPagesResponse) -> None:
        if event.HasField("start"):
            self._prepare(event.start)
        elif event.HasField("page"):
            self._write(self._file(event.page.number), page_text(self._form, event.page))
        if self._about is not None:
            self._told += self._about.event(event)

    def finish(self, *, complete: bool) -> None:
        if self._about is not None and self._told:
            self._write(self._path / _ABOUT, self._told + self._about.finish(complete=complete))

    def _prepare(self, start: extraction_pb2.ExtractionStart) -> None:
        """Before anything is read, as it would be read for nothing."""
        self._width = max(self._width, len(str(start.page_count)))
        files = [self._file(number) for number in range(start.first_page, start.last_page + 1)]
        refuse_to_replace([*files, self._path / _ABOUT] if self._about is not None else files, force=self._force)

    def _file(self, number: int) -> Path:
        return self._path / f"{number:0{self._width}d}{self._form.suffix}"

    def _write(self, path: Path, text: str) -> None:
        file = NewFile(path, force=self._force)
        try:
            file.write(text.encode())
        except Failure:
            file.abandon()
            raise
        file.commit()
