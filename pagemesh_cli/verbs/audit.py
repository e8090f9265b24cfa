"""`pagemesh audit`: who did what, and the proof that nobody changed what is told of it."""

import contextlib
import datetime as dt
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.table import Table
from rich.text import Text

from pagemesh.ledger.v1 import audit_pb2, audit_service_pb2
from pagemesh_cli.audit_chain import MAX_LINE_BYTES, BadRow, Place, verify
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.new_file import write_whole
from pagemesh_cli.output import Output, message_json, one_line
from pagemesh_cli.verbs.options import Access, Force, Json, Timeout, connected, connecting, failing
from pagemesh_cli.verbs.times import when

audit = typer.Typer(no_args_is_help=True, help="See who did what, and prove it.")
_LARGEST_PAGE = 1000
_PLACE = re.compile(r"^(\d{1,18}):([0-9a-f]{64})$")


@audit.command("list")
@connecting
def list_events(
    *,
    since: Annotated[dt.datetime | None, when("From then on")] = None,
    until: Annotated[dt.datetime | None, when("Until before then")] = None,
    actor: Annotated[str, typer.Option(help="Only what this actor did, such as `apiKeys/{id}`.")] = "",
    action: Annotated[str, typer.Option(help="Only this method, by its full name.")] = "",
    resource: Annotated[str, typer.Option(help="Only what was done to this, such as `documents/{id}`.")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed or was refused.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many records.")] = 50,
    as_json: Json = False,
    access: Access,
) -> None:
    """Print who did what, newest first."""
    output = Output(as_json=as_json)
    request = audit_service_pb2.ListEventsRequest(actor=actor, action=action, resource=resource)
    if failed:
        request.outcome = audit_service_pb2.ListEventsRequest.OUTCOME_FAILED
    if since is not None:
        request.start_time.FromDatetime(since)
    if until is not None:
        request.end_time.FromDatetime(until)
    with connected(output, access) as client:
        records = list(_records(client, request, limit))
        if as_json:
            for record in records:
                output.result(message_json(record))
        else:
            output.print(_table(records))


@audit.command()
@connecting
def head(*, as_json: Json = False, access: Access) -> None:
    """Print the newest record's place and hash for `verify --head`. Keep it where the operator cannot write."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        answer = client.unary(client.audit.GetChainHead, audit_service_pb2.GetChainHeadRequest())
        if as_json:
            output.result(message_json(answer))
        else:
            output.write(f"{answer.head.sequence}:{answer.head.hash}\n")


@audit.command()
@connecting
def export(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write it, one JSON object a line; - is stdout.")
    ],
    *,
    first: Annotated[int, typer.Option(min=0, help="Place of the first record; that which is kept by default.")] = 0,
    force: Force = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    access: Access,
) -> None:
    """Write the tenant's whole chain into a file that `verify` proves."""
    output = Output()
    with connected(output, access) as client:
        request = audit_service_pb2.ExportEventsRequest(first_sequence=first)
        pieces = client.stream(client.audit.ExportEvents, request, timeout_s=timeout)
        if str(path) == "-":
            for piece in pieces:
                output.write_bytes(piece.content.data)
            return
        write_whole(path, (piece.content.data for piece in pieces), force=force)


@audit.command("verify")
def verify_export(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="An export; - is stdin.")],
    *,
    heads: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="SEQUENCE:HASH", help="A place that was written down earlier; repeat for more."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove an export from the file alone: no record was changed, removed, added or moved.

    Exit code 0 where it holds; 1 with the first line that does not. Whoever could write the whole chain anew is found
    out by --head, a place that was kept elsewhere.
    """
    output = Output(as_json=as_json)
    with failing(output):
        pinned = [_place(text) for text in heads or ()]
        try:
            with _opened(path) as file:
                proof = verify(_lines(file), pinned)
        except BadRow as bad:
            raise _broken(bad) from bad
        if as_json:
            output.result(
                {
                    "tenant": proof.tenant,
                    "records": proof.records,
                    "begin": {"sequence": proof.begin.sequence, "hash": proof.begin.hash},
                    "head": {"sequence": proof.end.sequence, "hash": proof.end.hash},
                    "partial": proof.partial,
                    "unproven": proof.unproven,
                }
            )
            return
        begin = "the beginning" if proof.begin.sequence == 0 else f"record {proof.begin.sequence + 1}"
        hold = f"{counted(proof.records, 'record')} from {begin} {'holds' if proof.records == 1 else 'hold'}"
        output.write(f"{proof.tenant}: {hold}\n")
        output.write(f"{proof.end.sequence}:{proof.end.hash}\n")
        for text in proof.unproven:
            output.warn(text)


def _records(
    client: Client, request: audit_service_pb2.ListEventsRequest, limit: int
) -> Iterator[audit_pb2.AuditRecord]:
    left = limit
    while left > 0:
        request.page_size = min(left, _LARGEST_PAGE)
        page = client.unary(client.audit.ListEvents, request)
        yield from page.records
        left -= len(page.records)
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def _table(records: list[audit_pb2.AuditRecord]) -> Table:
    table = Table("time", "actor", "action", "resource", "ended", "client", box=None, pad_edge=False)
    for record in records:
        event = record.event
        time_text = event.occur_time.ToDatetime().isoformat(timespec="seconds") + "Z"
        ended = "OK" if event.code == 0 else event.reason or str(event.code)
        action = event.action.rpartition(".")[2]
        cells = (time_text, event.actor, action, event.resource, ended, event.client[:8])
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table


def _place(text: str) -> Place:
    match = _PLACE.match(text)
    if match is None:
        message = f"{text!r} is no place in a chain."
        raise Failure(message, ExitCode.USAGE, "BAD_HEAD", advice="Write it as `pagemesh audit head` prints it.")
    return Place(int(match[1]), match[2])


def _broken(bad: BadRow) -> Failure:
    record = "" if bad.sequence is None else f", record {bad.sequence}"
    failure = Failure(f"line {bad.line}{record}: {bad.why}", ExitCode.FAILED, "AUDIT_BROKEN")
    failure.fields = {"line": str(bad.line), "sequence": "" if bad.sequence is None else str(bad.sequence)}
    return failure


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise Failure(f"Cannot read {path}: {error.strerror}.", ExitCode.USAGE, "CANNOT_READ") from error


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """A line at a time; of one that is too long only so much as says so."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
