"""`pagemesh demo`: a fresh stack, a real PDF through its edge, what it cost, and an end without leftovers."""

import functools
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from pagemesh.extractor.v1 import extractor_service_pb2
from pagemesh.summarizer.v1 import summary_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.connection import resolve
from pagemesh_cli.demo import document_path
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.verbs.bill import LOOK_UP_TIMEOUT_S, PAUSES_S, print_consumption, print_usage, recorded_usage
from pagemesh_cli.verbs.options import failing
from pagemesh_cli.verbs.search import find, print_hit
from pagemesh_cli.verbs.summaries import (
    Length,
    Style,
    check_complete,
    fetch_summary,
    print_sentences,
    summary_options,
)
from pagemesh_cli.verbs.upload import unreadable, upload_file

_PDF = b"%PDF-"
_WORD = re.compile(r"[^\W\d_]+")
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
# Readers accept a PDF header within the first 1024 bytes (ISO 32000-1, annex H.3.4.1).
_HEAD_BYTES = 1024 + len(_PDF)


def demo(
    file: Annotated[Path | None, typer.Argument(help="Another document than the one that comes along.")] = None,
) -> None:
    """Start a stack in a temporary directory, summarise a PDF through it, show the bill, stop the stack."""
    output = Output()
    with failing(output):
        from pagemesh_cli.stack.preflight import require_packages  # noqa: PLC0415 - see `up`

        require_packages()
        if file is not None:
            require_document(file)
        with tempfile.TemporaryDirectory(prefix="pagemesh-demo-") as directory:
            root = Path(directory) / "data"
            _with_stack(output, root, file or document_path())


def require_document(path: Path) -> None:
    """Raises Failure where the file cannot be read or begins like none that the extractor takes.

    The extractor looks closer; this is only so that no stack is started for nothing.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    if not head.startswith(_IMAGES) and _PDF not in head:
        raise Failure(f"{path} is neither a PDF nor a JPEG nor a PNG.", ExitCode.USAGE, "UNSUPPORTED_MEDIA_TYPE")


def _with_stack(output: Output, root: Path, file: Path) -> None:
    from pagemesh_cli.stack.background import Supervised  # noqa: PLC0415 - see `up`

    output.note(f"starting a stack in {root}", "bold")
    with Supervised(root, port=0, environment=dict(os.environ)) as stack:
        output.note(f"the stack is up at {stack.state.url} after {stack.seconds:.1f} s", "green")
        with Client(resolve(url=None, key=None, ca_file=None, data_dir=root, environment={})) as client:
            document = upload_file(client, output, file, timeout_s=STREAM_TIMEOUT_S).document.name
            options = summary_options(Length.MEDIUM, Style.PARAGRAPH, "", "", "")
            summary = fetch_summary(client, output, document, options, timeout_s=STREAM_TIMEOUT_S)
            print_sentences(output, summary, Style.PARAGRAPH)
            print_consumption(output, summary)
            records = recorded_usage(client, output, summary)
            print_usage(output, records)
            _show_hit(client, output, document, summary)
            check_complete(summary, request_id=client.request_id)
            check_promises(summary, recorded={record.event.event_id for record in records})
    if DataDir(root).state_file.exists():
        raise Failure("The stack did not stop in good order.", reason="NOT_STOPPED")
    output.note("the stack stopped cleanly; its directory is removed", "green")


def _show_hit(client: Client, output: Output, document: str, summary: summary_pb2.Summary) -> None:
    """The best page for the summary's longest word; the index follows the pages within a moment. No hit is no failure:
    the demo is about the summary."""
    words = sorted((word for sentence in summary.sentences for word in _WORD.findall(sentence.text)), key=len)
    if not words:
        return
    request = extractor_service_pb2.SearchPagesRequest(query=words[-1], documents=[document])
    for pause_s in (*PAUSES_S, 0.0):
        try:
            answer = client.patiently(functools.partial(find, client, request, 1), timeout_s=LOOK_UP_TIMEOUT_S)
        except Failure as failure:
            output.note(f"the search did not answer: {failure.reason}", "yellow")
            return
        if answer.hits:
            output.write(f"\nthe best page for {words[-1]!r}:\n")
            print_hit(output, 1, answer.hits[0])
            return
        time.sleep(pause_s)


def check_promises(summary: summary_pb2.Summary, *, recorded: set[str]) -> None:
    """Raises Failure where a sentence lacks page, quote or box, or a model call lacks its row in the ledger."""
    if not summary.sentences:
        raise Failure("The summary is empty.", reason="EMPTY_SUMMARY")
    for sentence in summary.sentences:
        whole = all(citation.page and citation.quote and citation.boxes for citation in sentence.citations)
        if not sentence.grounded or not sentence.citations or not whole:
            raise Failure(f"A sentence has no page, quote and box: {sentence.text}", reason="UNGROUNDED")
    missing = set(summary.consumption.usage_event_ids) - recorded
    if missing or not recorded:
        raise Failure("The ledger has no row for a call that was made.", reason="UNRECORDED")
