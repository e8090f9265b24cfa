"""`pagemesh upload`, and the files that other verbs are given in the place of a document."""

import datetime as dt
import enum
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import timestamp_pb2

from pagemesh.extractor.v1 import document_pb2, extractor_service_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.options import Access, Json, Quiet, Timeout, connected, connecting
from pagemesh_cli.verbs.times import point

DOCUMENT = re.compile(r"^documents/[0-9a-f]{32}$")
_SUFFIXES = (".pdf", ".jpg", ".jpeg", ".png")
"""Of the files that are taken out of a folder; a file that is named is sent whatever it is called."""
_NAMES = "A document is documents/ and 32 digits and letters, as `pagemesh documents list` prints it."
# The next file would fare no better.
_HOPELESS = (ExitCode.UNREACHABLE, ExitCode.REFUSED, ExitCode.INTERRUPTED)

Source = Annotated[
    str, typer.Argument(metavar="DOCUMENT|FILE", help="`documents/{id}`, or a file, which is uploaded first.")
]


class Retention(enum.StrEnum):
    """Retention of the contract."""

    EPHEMERAL = "ephemeral"
    TEMPORARY = "temporary"
    KEPT = "kept"

    @property
    def value_in_contract(self) -> "document_pb2.Retention.ValueType":
        return document_pb2.Retention.Value(f"RETENTION_{self.name}")


@connecting
def upload(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="PDFs, JPEGs, PNGs; of a folder, the files with such a name."),
    ],
    *,
    retention: Annotated[
        Retention | None,
        typer.Option(
            help="ephemeral: erased once it was read; temporary: after a day (the default); kept: for a year, or until "
            "--keep-until."
        ),
    ] = None,
    keep_until: Annotated[
        dt.datetime | None,
        typer.Option(parser=point, metavar="TIME", help="Kept until then; at most a year ahead."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    access: Access,
) -> None:
    """Store documents and print their names."""
    output = Output(as_json=as_json, quiet=quiet)
    with connected(output, access) as client:
        if keep_until is not None and retention not in (None, Retention.KEPT):
            raise Failure("--keep-until is for what is kept.", ExitCode.USAGE, "BAD_RETENTION")
        wanted = Retention.KEPT if keep_until is not None else retention
        files = list(files_of(paths))
        failures = []
        for number, file in enumerate(files, start=1):
            try:
                response = upload_file(
                    client,
                    output,
                    file,
                    timeout_s=timeout,
                    retention=wanted,
                    until=keep_until,
                    number=number,
                    of=len(files),
                )
            except Failure as failure:
                if len(files) == 1 or failure.exit_code in _HOPELESS:
                    raise
                output.warn(f"{file}: {failure.reason}: {failure.message}")
                failures.append(failure)
                continue
            if as_json:
                output.result(message_json(response))
            else:
                output.write(f"{response.document.name}\n")
        if failures and len(failures) == len(files):
            raise Failure(
                f"None of the {len(files)} files was stored.",
                failures[0].exit_code,
                "FILES_FAILED",
                request_id=client.request_id,
            )
        if failures:
            raise Failure(
                f"{len(failures)} of {len(files)} files were not stored; the others were.",
                ExitCode.INCOMPLETE,
                "FILES_FAILED",
                request_id=client.request_id,
            )


def refuse_other_names(names: Iterable[str]) -> None:
    """Raises Failure BAD_NAME where one is no name of a document."""
    for name in names:
        if not DOCUMENT.fullmatch(name):
            raise Failure(f"'{name}' is no name of a document.", ExitCode.USAGE, "BAD_NAME", advice=_NAMES)


def document_name(client: Client, output: Output, source: str, *, timeout_s: float) -> str:
    """The name that is given, or that of the document which the file becomes.

    Whether a document of that name exists is left to the call that it is for: asking would need one more scope.
    """
    if DOCUMENT.match(source):
        return source
    return upload_file(client, output, Path(source), timeout_s=timeout_s).document.name


def upload_file(
    client: Client,
    output: Output,
    path: Path,
    *,
    timeout_s: float,
    retention: Retention | None = None,
    until: dt.datetime | None = None,
    number: int = 1,
    of: int = 1,
) -> extractor_service_pb2.UploadDocumentResponse:
    """Uploads with progress; of several files, it waits where there were too many. Raises Failure where it cannot be
    read."""
    expire_time = None
    if until is not None:
        expire_time = timestamp_pb2.Timestamp()
        expire_time.FromDatetime(until)
    # More than the edge allows would only make a silent server cost more.
    timeout_s = min(timeout_s, STREAM_TIMEOUT_S)
    kept = retention.value_in_contract if retention is not None else document_pb2.RETENTION_UNSPECIFIED

    which = f" ({number} of {of})" if of > 1 else ""

    def send() -> extractor_service_pb2.UploadDocumentResponse:
        with output.progress(f"uploading {path.name}{which}", path.stat().st_size) as meter:
            return client.upload(path, sent=meter.advance, retention=kept, expire_time=expire_time, timeout_s=timeout_s)

    try:
        response = (client.patiently if of > 1 else client.paced)(send, timeout_s=timeout_s)
    except OSError as error:
        raise unreadable(path, error) from error
    document = response.document
    known = "" if response.created else ", which was already there"
    output.note(f"uploaded {path.name} ({counted(document.size_bytes, 'byte')}) as {document.name}{known}", "dim")
    return response


def unreadable(path: Path, error: OSError) -> Failure:
    """A file that was named and cannot be read."""
    advice = "Name a file, or a document as documents/{id}."
    if isinstance(error, IsADirectoryError):
        advice = "Name one file. `pagemesh upload` and `pagemesh jobs submit` take all that are in a folder."
    elif isinstance(error, FileNotFoundError) and path.parts[:1] == ("documents",):
        advice = _NAMES
    return Failure(f"Cannot read {path}: {error.strerror}.", ExitCode.USAGE, "BAD_FILE", advice=advice)


def files_of(paths: list[Path]) -> Iterator[Path]:
    """The files, and in the place of each folder those in it and below. Raises Failure where a folder has none."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(_below(path))
        if not found:
            raise Failure(
                f"{path} has no PDF, JPEG or PNG in it.",
                ExitCode.USAGE,
                "BAD_FILE",
                advice=f"Of a folder, files that end with {', '.join(_SUFFIXES)} are taken; name others one by one.",
            )
        yield from found


def _below(folder: Path) -> Iterator[Path]:
    """Hidden files and folders are left alone, and so is what links lead to."""

    def refuse(error: OSError) -> None:
        raise unreadable(Path(error.filename or folder), error) from error

    for at, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(_SUFFIXES):
                yield Path(at, name)
