"""`pagemesh upload` and `pagemesh extract`."""

import enum
import re
from pathlib import Path
from typing import Annotated

import typer

from pagemesh.extractor.v1 import extraction_pb2, extractor_service_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.failures import ExitCode, Failure, from_status
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.options import CaFile, DataDirectory, Json, Key, Timeout, Url, connected

_DOCUMENT = re.compile(r"^documents/[0-9a-f]{32}$")
_PAGES = re.compile(r"^(\d{1,9})?(-)?(\d{1,9})?$")

Source = Annotated[
    str, typer.Argument(metavar="DOCUMENT|FILE", help="`documents/{id}`, or a file, which is uploaded first.")
]


class PageFormat(enum.StrEnum):
    """How pages are printed."""

    TEXT = "text"
    JSON = "json"


def upload(
    file: Annotated[Path, typer.Argument(help="A PDF, JPEG or PNG.")],
    *,
    as_json: Json = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    url: Url = None,
    key: Key = None,
    ca_file: CaFile = None,
    data_dir: DataDirectory = None,
) -> None:
    """Store a document and print its name."""
    output = Output(as_json=as_json)
    with connected(output, url=url, key=key, ca_file=ca_file, data_dir=data_dir) as client:
        response = upload_file(client, output, file, timeout_s=timeout)
        if as_json:
            output.result(message_json(response))
        else:
            output.write(f"{response.document.name}\n")


def extract(
    source: Source,
    *,
    pages: Annotated[str, typer.Option(help="Which pages: `3`, `1-5`, `7-` or `-4`. All of them by default.")] = "-",
    page_format: Annotated[
        PageFormat,
        typer.Option("--format", help="text: pages end with a form feed; json: one event a line, with boxes."),
    ] = PageFormat.TEXT,
    as_json: Json = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    url: Url = None,
    key: Key = None,
    ca_file: CaFile = None,
    data_dir: DataDirectory = None,
) -> None:
    """Print the pages of a document as they are parsed."""
    output = Output(as_json=as_json or page_format is PageFormat.JSON)
    with connected(output, url=url, key=key, ca_file=ca_file, data_dir=data_dir) as client:
        first, last = page_range(pages)
        name = document_name(client, output, source, timeout_s=timeout)
        request = extractor_service_pb2.ExtractPagesRequest(name=name, first_page=first, last_page=last)
        if not output.as_json:
            request.read_mask.paths.append("text")
        failed = _print_pages(client, output, request, timeout_s=timeout)
        if failed:
            raise Failure(
                f"{failed} of the pages could not be read; the others were printed.",
                ExitCode.INCOMPLETE,
                "PAGES_FAILED",
                request_id=client.request_id,
            )


def page_range(text: str) -> tuple[int, int]:
    """First and last page, each 0 where it is open. Raises Failure where `text` is no range."""
    match = _PAGES.match(text)
    if match is None or not text or (match[1] is None and match[2] is None):
        raise Failure(f"{text!r} is no range of pages.", ExitCode.USAGE, "BAD_PAGES", advice="Try 3, 1-5, 7- or -4.")
    first = int(match[1] or 0)
    last = int(match[3] or 0) if match[2] else first
    if (match[1] and first < 1) or (match[3] and last < 1) or (last and last < first):
        raise Failure(
            f"{text!r} is no range of pages.", ExitCode.USAGE, "BAD_PAGES", advice="Pages count from 1, upwards."
        )
    return first, last


def document_name(client: Client, output: Output, source: str, *, timeout_s: float) -> str:
    """The name that is given, or that of the document which the file becomes.

    Whether a document of that name exists is left to the call that it is for: asking would need one more scope.
    """
    if _DOCUMENT.match(source):
        return source
    return upload_file(client, output, Path(source), timeout_s=timeout_s).document.name


def upload_file(
    client: Client, output: Output, path: Path, *, timeout_s: float
) -> extractor_service_pb2.UploadDocumentResponse:
    """Uploads with progress. Raises Failure where the file cannot be read."""
    try:
        with output.progress(f"uploading {path.name}", path.stat().st_size) as meter:
            response = client.upload(path, sent=meter.advance, timeout_s=timeout_s)
    except OSError as error:
        raise unreadable(path, error) from error
    document = response.document
    known = "" if response.created else ", which was already there"
    output.note(f"uploaded {path.name} ({document.size_bytes} bytes) as {document.name}{known}", "dim")
    return response


def unreadable(path: Path, error: OSError) -> Failure:
    """A file that was named and cannot be read."""
    return Failure(
        f"Cannot read {path}: {error.strerror}.",
        ExitCode.USAGE,
        "BAD_FILE",
        advice="Name a file, or a document as documents/{id}.",
    )


def _print_pages(
    client: Client, output: Output, request: extractor_service_pb2.ExtractPagesRequest, *, timeout_s: float
) -> int:
    """Prints the stream as it comes; answers how many pages failed. Raises Failure where it breaks off."""
    failed, ended = 0, False
    with output.progress("reading pages", printing=True) as meter:
        for event in client.stream(client.extractor.ExtractPages, request, timeout_s=timeout_s):
            kind = event.WhichOneof("event")
            if kind == "error":
                raise from_status(event.error, request_id=client.request_id)
            if output.as_json:
                output.result(message_json(event))
            elif kind == "page":
                output.write(f"{event.page.text.rstrip()}\n\f")
            elif kind == "failed_page":
                output.write("\f")  # keeps its place, so that the others keep theirs
            if kind == "start":
                meter.at(0, event.start.last_page - event.start.first_page + 1)
                _warn_of_flags(output, event.start)
            elif kind in ("page", "failed_page"):
                meter.advance(1)
            if kind == "failed_page":
                failed += 1
                page = event.failed_page
                output.note(f"page {page.number}: {page.reason}: {page.message}", "yellow")
            ended = kind == "end"
    if not ended:
        raise Failure("The pages broke off before the end.", reason="CUT_OFF", request_id=client.request_id)
    return failed


def _warn_of_flags(output: Output, start: extraction_pb2.ExtractionStart) -> None:
    if extraction_pb2.DOCUMENT_FLAG_REPAIRED in start.flags:
        output.note("the file was damaged and had to be repaired: pages may be missing", "yellow")
