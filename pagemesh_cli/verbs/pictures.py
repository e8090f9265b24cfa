"""`pagemesh render`, and the pictures that `pagemesh extract --images` saves."""

import enum
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer
from google.api import httpbody_pb2

from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.new_file import NewFile, make_folder, refuse_to_replace, refuse_without_folder
from pagemesh_cli.output import Output
from pagemesh_cli.page_progress import PageProgress
from pagemesh_cli.passwords import Password
from pagemesh_cli.verbs.options import Access, Force, Json, PasswordFile, Quiet, Timeout, connected, connecting
from pagemesh_cli.verbs.ranges import LAST, PageRange, page_ranges
from pagemesh_cli.verbs.upload import Source, document_name

_OTHER_SUFFIXES = frozenset({".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf", ".avif", ".heic"})
_SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png"}

Pieces = Iterator[httpbody_pb2.HttpBody]


class PictureFormat(enum.StrEnum):
    """RenderPageRequest.Format of the contract."""

    JPEG = "jpeg"
    PNG = "png"


@connecting
def render(
    source: Source,
    *,
    page: Annotated[int | None, typer.Option(min=1, help="Which page; the first one by default.")] = None,
    pages: Annotated[str, typer.Option(help="Several pages, `3-7,12`, into the folder of --output.")] = "",
    dpi: Annotated[
        int, typer.Option(min=1, max=1200, help="Dots per inch; fewer where a side would be longer than 4096 px.")
    ] = 200,
    picture_format: Annotated[
        PictureFormat | None, typer.Option("--format", help="What the name of --output says, or jpeg, by default.")
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of a JPEG.")] = 95,
    output_path: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE|DIR", help="Where to; stdout where that is no terminal.")
    ] = "",
    force: Force = False,
    password_file: PasswordFile = None,
    quiet: Quiet = False,
    as_json: Json = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    access: Access,
) -> None:
    """Draw pages of a document."""
    output = Output(as_json=as_json, quiet=quiet)
    with connected(output, access) as client:
        path = Path(output_path) if output_path not in ("", "-") else None
        if pages and page is not None:
            raise Failure("Use --page or --pages.", ExitCode.USAGE, "BAD_PAGES")
        if pages and path is None:
            raise Failure("Several pages need a folder: --output DIR.", ExitCode.USAGE, "BAD_OUTPUT")
        if path is None and (as_json or sys.stdout.isatty()):
            raise Failure("A picture is no text: name a file with --output.", ExitCode.USAGE, "BAD_OUTPUT")
        several = path is not None and (bool(pages) or path.is_dir() or output_path.endswith("/"))
        if path is not None and not several:
            refuse_to_replace([path], force=force)
            refuse_without_folder(path)
        form = picture_format or _format_of(path)
        password = Password(output, password_file)
        name = document_name(client, output, source, timeout_s=timeout)
        request = pb.RenderPageRequest(
            name=name, dpi=dpi, format=pb.RenderPageRequest.Format.Value(f"FORMAT_{form.name}"), jpeg_quality=quality
        )

        def draw(number: int) -> Pieces:
            request.page, request.password = number, password.value
            for piece in client.stream(client.extractor.RenderPage, request, timeout_s=timeout):
                yield piece.content

        def fetch(number: int) -> Pieces:
            return password.stream(lambda: draw(number))

        if path is None:
            for content in fetch(page or 1):
                output.write_bytes(content.data)
        elif several:
            wanted = page_ranges(pages) if pages else [PageRange(page or 1, page or 1)]
            files = _draw_pages(client, output, wanted, fetch, folder=path, form=form, force=force, timeout_s=timeout)
            _tell(output, name, files)
        else:
            _save(fetch(page or 1), lambda _: path, force=force)
            _tell(output, name, [path])


def save_pictures(
    client: Client,
    output: Output,
    name: str,
    pictures: Mapping[int, int],
    *,
    folder: Path,
    password: Password,
    force: bool,
    timeout_s: float,
) -> list[str]:
    """Saves each picture of each page (`pictures` says how many it has) as `0003-01.png`; answers those that could not
    be had. Raises Failure where all of them would fail."""
    if not pictures:
        output.note("there are no pictures on these pages", "dim")
        return []
    make_folder(folder)
    lost = []
    with output.progress("saving pictures", sum(pictures.values())) as meter:
        for page, index in ((page, index) for page, count in pictures.items() for index in range(count)):
            request = pb.ExtractImageRequest(name=name, page=page, index=index, password=password.value)

            def fetch(request: pb.ExtractImageRequest = request) -> Path:
                pieces = client.stream(client.extractor.ExtractImage, request, timeout_s=timeout_s)
                stem = f"{request.page:04d}-{request.index:02d}"
                return _save((piece.content for piece in pieces), lambda suffix: folder / (stem + suffix), force=force)

            try:
                client.patiently(fetch, timeout_s=timeout_s)
            except Failure as failure:
                if failure.exit_code not in (ExitCode.FAILED, ExitCode.USAGE) or failure.reason in _OUR_OWN:
                    raise
                output.note(f"picture {index} of page {page}: {failure.reason}: {failure.message}", "yellow")
                lost.append(f"{index} of page {page} ({failure.reason})")
            meter.advance(1)
    saved = sum(pictures.values()) - len(lost)
    output.note(f"saved {saved} {'picture' if saved == 1 else 'pictures'} in {folder}", "dim")
    return lost


_OUR_OWN = ("FILE_EXISTS", "CANNOT_WRITE", "UNIMPLEMENTED")
"""Reasons that hold for the next picture as well."""


def _draw_pages(
    client: Client,
    output: Output,
    ranges: list[PageRange],
    fetch: Callable[[int], Pieces],
    *,
    folder: Path,
    form: PictureFormat,
    force: bool,
    timeout_s: float,
) -> list[Path]:
    """A file for each page, `0003.jpg`. A range ends with the document; raises Failure where it begins behind it."""
    make_folder(folder)
    suffix = _SUFFIXES[f"image/{form}"]
    files: list[Path] = []
    with PageProgress(output, "drawing pages", printing=False) as progress:
        for wanted in ranges:
            if wanted.last != LAST:
                progress.expect(wanted.last - wanted.first + 1)
            for number in range(wanted.first, wanted.last + 1):
                path = folder / f"{number:04d}{suffix}"
                refuse_to_replace([path], force=force)

                def draw(number: int = number, path: Path = path) -> Path:
                    return _save(fetch(number), lambda _: path, force=force)

                try:
                    files.append(client.patiently(draw, timeout_s=timeout_s))
                except Failure as failure:
                    if failure.reason == "PAGE_OUT_OF_RANGE" and number > wanted.first:
                        break
                    raise
                progress.page()
    return files


def _save(pieces: Pieces, path_for: Callable[[str], Path], *, force: bool) -> Path:
    """Writes the pieces into a file whose name may depend on the suffix that their content type asks for. Raises
    Failure, and leaves nothing then."""
    file: NewFile | None = None
    try:
        for content in pieces:
            if file is None:
                file = NewFile(path_for(_SUFFIXES.get(content.content_type, ".bin")), force=force)
            file.write(content.data)
        if file is None:
            raise Failure("The picture is empty.", reason="CUT_OFF")
        file.commit()
        return file.path
    except BaseException:
        if file is not None:
            file.abandon()
        raise


def _tell(output: Output, name: str, files: list[Path]) -> None:
    if output.as_json:
        output.result({"document": name, "files": [str(path) for path in files]})
    else:
        for path in files:
            output.write(f"{path}\n")


def _format_of(path: Path | None) -> PictureFormat:
    """What the name says. Raises Failure BAD_OUTPUT where it says something else than a picture can be."""
    suffix = path.suffix.lower() if path is not None and not path.is_dir() else ""
    if suffix in _OTHER_SUFFIXES:
        raise Failure(
            f"A picture is a JPEG or a PNG, and {path} says something else.",
            ExitCode.USAGE,
            "BAD_OUTPUT",
            advice="Name it .jpg or .png, or say --format.",
        )
    return PictureFormat.PNG if suffix == ".png" else PictureFormat.JPEG
