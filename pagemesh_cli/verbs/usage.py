"""`pagemesh usage`: records, groups, a forecast, and all of it as a file."""

import datetime as dt
import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1 import usage_group_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.new_file import write_whole
from pagemesh_cli.output import Output, message_json, printable
from pagemesh_cli.verbs.bill import print_usage
from pagemesh_cli.verbs.money import money
from pagemesh_cli.verbs.options import Access, Force, Json, connected, connecting
from pagemesh_cli.verbs.times import when

_LARGEST_PAGE = 1000
_DIMENSIONS = ("day", "model", "tag:KEY", "api_key", "project", "user", "job", "operation")


class ExportFormat(enum.StrEnum):
    """ExportUsageRequest.Format of the contract."""

    CSV = "csv"
    NDJSON = "ndjson"


@connecting
def usage(
    *,
    since: Annotated[dt.datetime | None, when("From then on")] = None,
    until: Annotated[dt.datetime | None, when("Until before then")] = None,
    document: Annotated[str, typer.Option(help="Only calls for this document, `documents/{id}`.")] = "",
    request_id: Annotated[str, typer.Option(help="Only calls for this request.")] = "",
    model: Annotated[str, typer.Option(help="Only calls of this model.")] = "",
    project: Annotated[str, typer.Option(help="Only calls in this project, `projects/{id}`.")] = "",
    api_key: Annotated[str, typer.Option(help="Only calls by this key, `apiKeys/{id}`.")] = "",
    user: Annotated[str, typer.Option(help="Only calls by keys of this user, `users/{id}`.")] = "",
    job: Annotated[str, typer.Option(help="Only calls for this job, `jobs/{id}`.")] = "",
    operation: Annotated[str, typer.Option(help="Only calls for this operation.")] = "",
    tag: Annotated[str, typer.Option(metavar="KEY=VALUE", help="Only calls with this tag.")] = "",
    by: Annotated[
        list[str] | None, typer.Option(help=f"Add up by this; repeat for more. One of {', '.join(_DIMENSIONS)}.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, max=1000, help="Only so many groups, the dearest.")] = 0,
    forecast: Annotated[bool, typer.Option("--forecast", help="Say what this month will have cost.")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save every record, oldest first; - is stdout.")
    ] = None,
    export_format: Annotated[ExportFormat, typer.Option("--format", help="Of the saved file.")] = ExportFormat.CSV,
    force: Force = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many records.")] = 50,
    as_json: Json = False,
    access: Access,
) -> None:
    """Print what was used and what it cost, newest first, with the total of the whole selection."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        common = usage_group_pb2.UsageFilter(
            model=model, project=project, api_key=api_key, user=user, job=job, operation=operation
        )
        if tag:
            common.tag.CopyFrom(_tag(tag))
        asked = pb.QueryUsageRequest(document=document, request_id=request_id, filter=common, top=top)
        _group_by(asked, by or [])
        if since is not None:
            asked.start_time.FromDatetime(since)
        if until is not None:
            asked.end_time.FromDatetime(until)
        if sum((forecast, export is not None, bool(by))) > 1:
            raise Failure("Use one of --by, --forecast and --export.", ExitCode.USAGE, "BAD_OPTIONS")
        if forecast:
            _forecast(client, output)
        elif export is not None:
            _export(client, output, asked, export, export_format, force=force)
        else:
            answer = _query(client, asked, 1 if by else limit)
            _print(output, answer, asked)


def _print(output: Output, answer: pb.QueryUsageResponse, asked: pb.QueryUsageRequest) -> None:
    if output.as_json:
        if asked.group_by:
            answer.ClearField("records")
            answer.ClearField("next_page_token")
        output.result(message_json(answer))
        return
    if asked.group_by:
        _print_groups(output, answer.groups, asked)
        if answer.more_groups:
            output.note(
                f"there are more than {counted(len(answer.groups), 'group')}; choose less, or the dearest with --top"
            )
    else:
        print_usage(output, answer.records)
    output.write(f"{counted(answer.total_records, 'record')}, {money(answer.total_cost)}; held {money(answer.held)}\n")


def _query(client: Client, request: pb.QueryUsageRequest, limit: int) -> pb.QueryUsageResponse:
    """Pages joined until `limit` records are there; totals and groups are those of the first page."""
    request.page_size = min(limit, _LARGEST_PAGE)
    answer = page = client.unary(client.ledger.QueryUsage, request)
    while page.next_page_token and len(answer.records) < limit:
        request.page_token = page.next_page_token
        request.page_size = min(limit - len(answer.records), _LARGEST_PAGE)
        page = client.unary(client.ledger.QueryUsage, request)
        answer.records.extend(page.records)
        answer.next_page_token = page.next_page_token
    return answer


def _group_by(request: pb.QueryUsageRequest, by: Sequence[str]) -> None:
    """Raises Failure BAD_GROUP for what is no dimension."""
    for name in by:
        kind, _, key = name.partition(":")
        value = usage_group_pb2.UsageDimension.DESCRIPTOR.values_by_name.get(f"USAGE_DIMENSION_{kind.upper()}")
        if value is None or value.number == 0 or (kind == "tag") != bool(key):
            raise Failure(f"{name!r} is nothing to add up by.", ExitCode.USAGE, "BAD_GROUP", advice=_advice())
        request.group_by.append(usage_group_pb2.UsageDimension.ValueType(value.number))
        request.group_tag = key or request.group_tag


def _advice() -> str:
    return f"One of {', '.join(_DIMENSIONS)}."


def _tag(text: str) -> usage_group_pb2.UsageTag:
    key, equals, value = text.partition("=")
    if not equals:
        raise Failure(f"{text!r} is no tag.", ExitCode.USAGE, "BAD_TAG", advice="Write it as KEY=VALUE.")
    return usage_group_pb2.UsageTag(key=key, value=value)


def _print_groups(output: Output, groups: Sequence[usage_group_pb2.UsageGroup], asked: pb.QueryUsageRequest) -> None:
    """A column for each dimension, in the order that they were asked for; `-` for records without."""
    names = [usage_group_pb2.UsageDimension.Name(d).removeprefix("USAGE_DIMENSION_").lower() for d in asked.group_by]
    table = Table(*names, box=None, pad_edge=False)
    for column in ("records", "tokens", "cost"):
        table.add_column(column, justify="right")
    for group in groups:
        cells = [group.day.ToDatetime().date().isoformat() if n == "day" else getattr(group, n) or "-" for n in names]
        cells += [str(group.records), f"{group.input_tokens}+{group.output_tokens}", money(group.cost)]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    output.print(table)


def _forecast(client: Client, output: Output) -> None:
    told = client.unary(client.ledger.ForecastUsage, pb.ForecastUsageRequest())
    if output.as_json:
        output.result(message_json(told))
        return
    output.write(f"spent this month {money(told.spent)}\n")
    if told.too_little_history:
        output.write(f"no forecast: {counted(told.history_days, 'whole day')} of history, and it takes 7\n")
        return
    output.write(
        f"expected at its end {money(told.expected)}, between {money(told.low)} and {money(told.high)}"
        f" (from {counted(told.history_days, 'day')})\n"
    )


def _export(
    client: Client, output: Output, asked: pb.QueryUsageRequest, path: Path, export_format: ExportFormat, *, force: bool
) -> None:
    """The whole file, or none; stdout gets what comes, and nothing else."""
    request = pb.ExportUsageRequest(
        document=asked.document,
        request_id=asked.request_id,
        filter=asked.filter,
        format=pb.ExportUsageRequest.Format.Value(f"FORMAT_{export_format.name}"),
    )
    for name in ("start_time", "end_time"):
        if asked.HasField(name):
            getattr(request, name).CopyFrom(getattr(asked, name))
    pieces = client.stream(client.ledger.ExportUsage, request, timeout_s=STREAM_TIMEOUT_S)
    if str(path) == "-":
        for piece in pieces:
            output.write_bytes(piece.content.data)
        return
    file = write_whole(path, (piece.content.data for piece in pieces), force=force)
    if output.as_json:
        output.result({"file": str(file.path), "bytes": file.written_bytes})
    else:
        output.write(f"saved {counted(file.written_bytes, 'byte')} in {file.path}\n")
