"""`pagemesh extract`."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pagemesh.extractor.v1 import extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh_cli.client import Client
from pagemesh_cli.counting import counted
from pagemesh_cli.extraction import Extraction, Tally
from pagemesh_cli.failures import ExitCode, Failure, advice_for
from pagemesh_cli.new_file import refuse_to_replace, refuse_without_folder
from pagemesh_cli.output import Output
from pagemesh_cli.page_formats import PageFormat, format_of
from pagemesh_cli.page_progress import PageProgress
from pagemesh_cli.page_targets import folder_or_file, target
from pagemesh_cli.passwords import Password
from pagemesh_cli.verbs.options import Access, Force, Json, PasswordFile, Quiet, Timeout, connected, connecting
from pagemesh_cli.verbs.pictures import save_pictures
from pagemesh_cli.verbs.ranges import page_ranges, told
from pagemesh_cli.verbs.upload import Source, document_name

PARTS = (
    *("text", "blocks", "words", "markdown", "tables", "images", "links", "language", "flags"),
    *("metadata", "outline"),
)
_TIMEOUT_S = 3600.0
_MASK = {PageFormat.TEXT: ["text"], PageFormat.MARKDOWN: ["markdown"]}


class Ocr(enum.StrEnum):
    """OcrMode of the contract."""

    AUTO = "auto"
    OFF = "off"
    ALWAYS = "always"


@dataclass(frozen=True)
class _Plan:
    """What the command line asks for, once it was looked at."""

    form: PageFormat
    parts: list[str]
    output: Path | None


@connecting
def extract(
    source: Source,
    *,
    pages: Annotated[str, typer.Option(help="Which pages: `3`, `1-5`, `7-`, `-4` or `3-7,12`. All by default.")] = "-",
    page_format: Annotated[
        PageFormat | None,
        typer.Option(
            "--format",
            help="text: pages end with a form feed; json: one object with all pages; ndjson: one event a line. "
            "What the name of --output says, or text, by default.",
        ),
    ] = None,
    parts: Annotated[
        str,
        typer.Option(
            metavar="PART,…", help=f"For json and ndjson: {', '.join(PARTS)}, or all. text,blocks by default."
        ),
    ] = "",
    output_path: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE|DIR", help="Into a file, or a folder with a file for each page."),
    ] = "",
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save the pictures on the pages, too, into this folder.")
    ] = None,
    force: Force = False,
    ocr: Annotated[Ocr, typer.Option(help="Recognise text in pictures of pages: where there is no other.")] = Ocr.AUTO,
    password_file: PasswordFile = None,
    quiet: Quiet = False,
    as_json: Json = False,
    timeout: Timeout = _TIMEOUT_S,
    access: Access,
) -> None:
    """Print or save the pages of a document as they are parsed."""
    output = Output(as_json=as_json, quiet=quiet)
    with connected(output, access) as client:
        ranges = page_ranges(pages)
        plan = _plan(page_format, parts, output_path, as_json=as_json)
        if images is not None and "images" not in plan.parts:
            plan.parts.extend(["images"] if plan.parts else ["text", "blocks", "images"])
        if plan.output is not None and not plan.output.is_dir():
            refuse_to_replace([plan.output], force=force)
            refuse_without_folder(plan.output)
        password = Password(output, password_file)
        name = document_name(client, output, source, timeout_s=timeout)
        request = pb.ExtractPagesRequest(name=name, ocr=extraction_pb2.OcrMode.Value(f"OCR_MODE_{ocr.name}"))
        request.read_mask.paths.extend(plan.parts)
        extraction = Extraction(client, output, request, password, timeout_s=timeout)
        goal = target(output, plan.output, plan.form, name, force=force)
        with PageProgress(output, "reading pages", printing=plan.output is None) as progress:
            tally = extraction.run(ranges, goal, progress)
        if ocr is Ocr.OFF and tally.textless:
            textless = counted(tally.textless, "page")
            output.note(f"{textless} without text; `--ocr auto` reads what pictures say", "yellow")
        lost = []
        if images is not None:
            lost = save_pictures(
                client, output, name, tally.pictures, folder=images, password=password, force=force, timeout_s=timeout
            )
        if as_json and plan.output is not None:
            output.result(
                {
                    "document": name,
                    "output": str(plan.output),
                    "pages": progress.done - progress.failed,
                    "failedPages": [{"number": page, "reason": reason} for page, reason in tally.failed.items()],
                    "requestId": client.request_id,
                }
            )
        _check_complete(client, tally, lost)


def _plan(form: PageFormat | None, parts: str, output: str, *, as_json: bool) -> _Plan:
    """Raises Failure where the options contradict each other."""
    path = folder_or_file(output)
    printed = as_json and path is None
    wanted = form or (PageFormat.NDJSON if printed else format_of(path))
    if printed and not wanted.is_json:
        raise Failure(f"--json prints JSON, and --format {wanted} none.", ExitCode.USAGE, "BAD_FORMAT")
    names = [name for name in parts.replace(" ", "").split(",") if name]
    if names and not wanted.is_json:
        raise Failure(f"--parts is for json and ndjson; {wanted} has one part.", ExitCode.USAGE, "BAD_PARTS")
    if "all" in names:
        names = list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        advice = f"There are {', '.join(PARTS)}, and all."
        raise Failure(f"No part is called {', '.join(unknown)}.", ExitCode.USAGE, "BAD_PARTS", advice=advice)
    return _Plan(wanted, names or list(_MASK.get(wanted, [])), path)


def _check_complete(client: Client, tally: Tally, lost: list[str]) -> None:
    """Raises Failure INCOMPLETE where pages or pictures are missing, and says which and why."""
    said = []
    for reason in sorted(set(tally.failed.values())):
        numbers = [page for page, why in tally.failed.items() if why == reason]
        said.append(f"{told(numbers)} ({reason})")
    if said:
        count = len(tally.failed)
        others = " The others are complete." if tally.read else ""
        raise Failure(
            f"{counted(count, 'page')} could not be read: {'; '.join(said)}.{others}",
            ExitCode.INCOMPLETE,
            "PAGES_FAILED",
            advice=advice_for("DOCUMENT_CORRUPT") if "PAGE_CORRUPT" in tally.failed.values() else "",
            request_id=client.request_id,
        )
    if lost:
        raise Failure(
            f"Pictures that could not be had: {', '.join(lost)}.",
            ExitCode.INCOMPLETE,
            "PICTURES_FAILED",
            request_id=client.request_id,
        )
