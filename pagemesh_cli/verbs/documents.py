"""`pagemesh documents`: what is stored, for how long, and its end."""

import datetime as dt
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from google.protobuf import timestamp_pb2
from rich.table import Table
from rich.text import Text

from pagemesh.extractor.v1 import document_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh_cli.client import UNARY_TIMEOUT_S, Client
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output, message_json, one_line
from pagemesh_cli.verbs.options import Access, Json, Timeout, connected, connecting
from pagemesh_cli.verbs.times import duration, point
from pagemesh_cli.verbs.upload import Retention, refuse_other_names

documents = typer.Typer(no_args_is_help=True, help="See, keep and delete documents.")
_LARGEST_PAGE = 1000
_DELETE_TIMEOUT_S = 120.0
_TABLE_WIDTH = 160
_NUMBERS = ("bytes", "pages", "searchable", "indexed", "results")

Names = Annotated[
    list[str],
    typer.Argument(metavar="DOCUMENT", help="`documents/{id}`, as `pagemesh documents list` prints it."),
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")]


@documents.command("list")
@connecting
def list_documents(*, limit: Limit = 50, as_json: Json = False, access: Access) -> None:
    """List documents, newest first."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        answer = pb.ListDocumentsResponse()
        while True:
            size = min(limit - len(answer.documents), _LARGEST_PAGE)
            request = pb.ListDocumentsRequest(page_size=size, page_token=answer.next_page_token)
            page = client.unary(client.extractor.ListDocuments, request)
            answer.documents.extend(page.documents)
            answer.next_page_token = page.next_page_token
            if not page.next_page_token or len(answer.documents) >= limit:
                break
        if as_json:
            output.result(message_json(answer))
            return
        if not answer.documents:
            output.note("there are no documents")
            return
        rows = [_row(found) for found in answer.documents]
        _print_rows(output, ("document", "file", "stored", "kept", "until", "bytes", "pages", "searchable"), rows)
        _tell_more(output, answer.next_page_token, limit)


@documents.command("show")
@connecting
def show(names: Names, *, as_json: Json = False, access: Access) -> None:
    """Print what is known of documents."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:

        def one(name: str) -> None:
            found = client.unary(client.extractor.GetDocument, pb.GetDocumentRequest(name=name)).document
            if as_json:
                output.result(message_json(found))
            else:
                _print_document(output, found)

        _each(client, output, names, one, timeout_s=UNARY_TIMEOUT_S)


@documents.command("keep")
@connecting
def keep(
    names: Names,
    *,
    until: Annotated[
        dt.datetime | None, typer.Option(parser=point, metavar="TIME", help="Until then; at most a year ahead.")
    ] = None,
    span: Annotated[str, typer.Option("--for", metavar="SPAN", help="For 12h or 30d from now.")] = "",
    temporary: Annotated[bool, typer.Option("--temporary", help="Until a day after its upload.")] = False,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Until it was read, or for an hour.")] = False,
    as_json: Json = False,
    access: Access,
) -> None:
    """Change how long documents are kept: a year, unless an option says otherwise."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        if sum((until is not None, bool(span), temporary, ephemeral)) > 1:
            raise Failure("Use one of --until, --for, --temporary, --ephemeral.", ExitCode.USAGE, "BAD_RETENTION")
        expire_time = dt.datetime.now(dt.UTC) + duration(span) if span else until
        retention = Retention.TEMPORARY if temporary else Retention.EPHEMERAL if ephemeral else Retention.KEPT

        def one(name: str) -> None:
            request = pb.UpdateDocumentRequest()
            request.document.name = name
            request.document.retention = retention.value_in_contract
            request.update_mask.paths.append("retention")
            if expire_time is not None:
                request.document.expire_time.FromDatetime(expire_time)
                request.update_mask.paths.append("expire_time")
            changed = client.unary(client.extractor.UpdateDocument, request).document
            if as_json:
                output.result(message_json(changed))
            else:
                kept = _retention(changed.retention)
                output.write(f"{changed.name}  {kept} until {_time(changed.expire_time)}\n")

        _each(client, output, names, one, timeout_s=UNARY_TIMEOUT_S)


@documents.command("delete")
@connecting
def delete(
    names: Names,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    timeout: Timeout = _DELETE_TIMEOUT_S,
    access: Access,
) -> None:
    """Erase documents and everything that was made of them; print the receipts."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        if not yes and sys.stdin.isatty():
            what = names[0] if len(names) == 1 else f"{len(names)} documents"
            if not typer.confirm(f"Erase {one_line(what)} for good?", err=True):
                raise Failure("Nothing was erased.", ExitCode.INTERRUPTED, "NOT_CONFIRMED")

        def one(name: str) -> None:
            request = pb.DeleteDocumentRequest(name=name)
            receipt = client.unary(client.extractor.DeleteDocument, request, timeout_s=timeout).receipt
            if as_json:
                output.result(message_json(receipt))
            else:
                _print_receipt(output, receipt)

        _each(client, output, names, one, timeout_s=timeout)


@documents.command("receipts")
@connecting
def receipts(*, limit: Limit = 50, as_json: Json = False, access: Access) -> None:
    """List what was erased, newest first."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        answer = pb.ListDeletionReceiptsResponse()
        while True:
            size = min(limit - len(answer.receipts), _LARGEST_PAGE)
            request = pb.ListDeletionReceiptsRequest(page_size=size, page_token=answer.next_page_token)
            page = client.unary(client.extractor.ListDeletionReceipts, request)
            answer.receipts.extend(page.receipts)
            answer.next_page_token = page.next_page_token
            if not page.next_page_token or len(answer.receipts) >= limit:
                break
        if as_json:
            output.result(message_json(answer))
            return
        if not answer.receipts:
            output.note("nothing was erased")
            return
        rows = [
            (
                *(receipt.name, receipt.document, _time(receipt.delete_time), receipt.cause),
                *(f"{receipt.size_bytes:,}", f"{receipt.pages_deleted:,}"),
                *(f"{receipt.index_entries_deleted:,}", f"{receipt.results_deleted:,}"),
            )
            for receipt in answer.receipts
        ]
        _print_rows(output, ("receipt", "document", "erased", "why", "bytes", "pages", "indexed", "results"), rows)
        _tell_more(output, answer.next_page_token, limit)


def _each(client: Client, output: Output, names: list[str], one: Callable[[str], None], *, timeout_s: float) -> None:
    """Does it for each of them, whatever becomes of the others. Raises the failure of a single one, and one before
    anything is done where a name is none."""
    failures: list[Failure] = []
    names = list(dict.fromkeys(names))
    refuse_other_names(names)
    for name in names:
        try:
            client.patiently(functools.partial(one, name), timeout_s=timeout_s)
        except Failure as failure:
            if len(names) == 1 or failure.exit_code in (ExitCode.UNREACHABLE, ExitCode.REFUSED):
                raise
            output.warn(f"{name}: {failure.reason}: {failure.message}")
            failures.append(failure)
    if failures and len(failures) == len(names):
        raise Failure(
            f"Each of the {len(names)} documents failed.",
            failures[0].exit_code,
            "DOCUMENTS_FAILED",
            request_id=client.request_id,
        )
    if failures:
        raise Failure(
            f"{len(failures)} of {len(names)} documents failed; the others are done.",
            ExitCode.INCOMPLETE,
            "DOCUMENTS_FAILED",
            request_id=client.request_id,
        )


def _print_document(output: Output, found: document_pb2.Document) -> None:
    pages = str(found.page_count) if found.HasField("page_count") else "not known before it is first read"
    until = f", until {_time(found.expire_time)}" if found.HasField("expire_time") else ""
    lines = {
        "file": f"{one_line(found.display_name)} ({found.media_type}, {counted(found.size_bytes, 'byte')})",
        "sha256": found.sha256,
        "stored": _time(found.create_time),
        "kept": _retention(found.retention) + until,
        "pages": f"{pages}; {found.searchable_pages} searchable",
    }
    output.write(f"{found.name}\n" + "".join(f"  {what:<11} {told}\n" for what, told in lines.items()))


def _print_receipt(output: Output, receipt: document_pb2.DeletionReceipt) -> None:
    lines = {
        "erased": f"{_time(receipt.delete_time)} ({receipt.cause or 'REQUESTED'})",
        "file": f"{counted(receipt.size_bytes, 'byte')}, sha256 {receipt.sha256}",
        "with it": f"objects {receipt.objects_deleted}, stored pages {receipt.pages_deleted}, "
        f"index entries {receipt.index_entries_deleted}, results {receipt.results_deleted}",
        "receipt": f"{receipt.name}, digest {receipt.digest}",
    }
    output.write(f"{receipt.document}\n" + "".join(f"  {what:<11} {told}\n" for what, told in lines.items()))


def _tell_more(output: Output, token: str, limit: int) -> None:
    if token:
        output.note(f"there are more; --limit {min(limit * 2, 10_000)} shows them", "dim")


def _row(found: document_pb2.Document) -> tuple[str, ...]:
    pages = f"{found.page_count:,}" if found.HasField("page_count") else "-"
    kept = (_retention(found.retention), _time(found.expire_time))
    numbers = (f"{found.size_bytes:,}", pages, f"{found.searchable_pages:,}")
    return (found.name, found.display_name, _time(found.create_time), *kept, *numbers)


def _print_rows(output: Output, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table where it has room, and two lines for each row where it has not."""
    if output.console.width < _TABLE_WIDTH:
        for row in rows:
            rest = ", ".join(f"{column} {one_line(cell)}" for column, cell in zip(columns[1:], row[1:], strict=True))
            output.print(Text.assemble((row[0], "bold"), f"\n  {rest}"), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        number = column in _NUMBERS
        table.add_column(column, justify="right" if number else "left", no_wrap=number or column == columns[0])
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    output.print(table)


def _retention(value: "document_pb2.Retention.ValueType") -> str:
    return document_pb2.Retention.Name(value).removeprefix("RETENTION_").lower()


def _time(stamp: timestamp_pb2.Timestamp) -> str:
    """UTC to the second; a hyphen where there is none."""
    return stamp.ToDatetime().isoformat(timespec="seconds") + "Z" if stamp.seconds else "-"
