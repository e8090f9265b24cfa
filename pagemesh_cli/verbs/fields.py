"""`pagemesh fields`."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from pagemesh.summarizer.v1 import fields_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output, json_text, message_json
from pagemesh_cli.verbs.anonymising import Anonymise, replaced
from pagemesh_cli.verbs.money import MaxCost, money
from pagemesh_cli.verbs.options import Access, Json, Timeout, connected, connecting
from pagemesh_cli.verbs.ranges import PagesOption, one_range
from pagemesh_cli.verbs.summaries import OcrModelOption
from pagemesh_cli.verbs.upload import Source, document_name

MAX_SCHEMA_BYTES = 1024 * 1024
"""A larger file is no schema; the service's own bound is lower and says so."""


@connecting
def fields(
    source: Source,
    *,
    schema: Annotated[
        str,
        typer.Option(metavar="FILE|NAME", help="A file of JSON Schema, or `schemas/{id}`, `schemas/{id}@{version}`."),
    ],
    model: Annotated[str, typer.Option(help="`provider/model`; the stack's default otherwise.")] = "",
    fallback: Annotated[
        list[str] | None,
        typer.Option(help="Another model that may answer where that one cannot; again for more, in their order."),
    ] = None,
    ocr_model: OcrModelOption = "",
    pages: PagesOption = "",
    max_cost: MaxCost = None,
    anonymise: Anonymise = None,
    as_json: Json = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    access: Access,
) -> None:
    """Find what a JSON Schema describes: every value with page, quote and boxes, then what it cost."""
    output = Output(as_json=as_json)
    options = fields_pb2.FieldOptions(
        model=model, fallback_models=fallback or (), ocr_model=ocr_model, anonymise=anonymise or ()
    )
    request = fields_pb2.ExtractFieldsRequest(options=options, max_cost=max_cost)
    wanted: list[str] = []
    with connected(output, access) as client:
        request.first_page, request.last_page = one_range(pages)
        if schema.startswith("schemas/"):
            request.schema = schema
        else:
            read = read_schema(Path(schema))
            json_format.ParseDict(read, request.json_schema)
            wanted = list(read["properties"]) if isinstance(read.get("properties"), dict) else []
        request.document = document_name(client, output, source, timeout_s=timeout)
        with output.progress("looking for fields"):
            extraction = client.unary(client.summarizer.ExtractFields, request, timeout_s=timeout).extraction
        if as_json:
            output.result({"extraction": message_json(extraction), "requestId": client.request_id})
        else:
            print_extraction(output, extraction, wanted=wanted)
        _check(extraction, request_id=client.request_id)


def read_schema(path: Path) -> dict[str, Any]:
    """The object of JSON in a file. Raises Failure where there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SCHEMA_BYTES + 1)
        if len(data) > MAX_SCHEMA_BYTES:
            raise Failure(f"{path} is too large for a schema.", ExitCode.USAGE, "SCHEMA_TOO_LARGE")
        schema = json.loads(data, parse_constant=_refuse)
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}.", ExitCode.USAGE, "UNREADABLE_FILE") from error
    except (ValueError, RecursionError) as error:
        raise Failure(f"{path} is not JSON: {error}.", ExitCode.USAGE, "SCHEMA_INVALID") from error
    if not isinstance(schema, dict):
        raise Failure(f"{path} holds no JSON object.", ExitCode.USAGE, "SCHEMA_INVALID")
    return schema


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def print_extraction(output: Output, extraction: fields_pb2.Extraction, *, wanted: Collection[str] = ()) -> None:
    """Each value with the words that say it, what is wrong or missing, and what it cost. `wanted`: the properties of
    the schema, where it is known here."""
    for field in extraction.fields:
        if field.value.HasField("null_value") and not field.grounded:
            output.write(f"{field.pointer}: not found\n")
            continue
        output.write(f"{field.pointer}: {_shown(field.value)}  (confidence {field.confidence:.2f})\n")
        if field.grounded:
            boxes = " ".join(f"[{b.x0:.1f} {b.y0:.1f} {b.x1:.1f} {b.y1:.1f}]" for b in field.citation.boxes)
            where = boxes or "as a model read it"
            output.write(f"     page {field.citation.page}, {where}\n       \u201c{field.citation.quote}\u201d\n")
        else:
            output.write("     not grounded: nothing like it was found in the document\n")
        for other in field.others:
            output.write(
                f"     page {other.citation.page} says {_shown(other.value)}: \u201c{other.citation.quote}\u201d\n"
            )
    for pointer in _not_found(extraction, wanted):
        output.write(f"{pointer}: not found\n")
    if not extraction.fields and not extraction.missing_required and not wanted:
        output.write("none of the fields was found\n")
    for violation in extraction.violations:
        output.write(f"! {violation.pointer or '(all)'} {violation.message}\n")
    for pointer in extraction.missing_required:
        output.write(f"! {pointer} is required and was not found\n")
    if extraction.repair_unaffordable:
        output.write("! max_cost had no room to ask about it once more\n")
    used = extraction.consumption
    instead = f" in place of {extraction.degraded_from}, which could not answer" if extraction.degraded_from else ""
    known = ", known before" if extraction.cached else ""
    calls = counted(used.provider_calls, "model call")
    pending = "" if used.settled else " (reserved; the exact amount follows)"
    output.write(
        f"\n{extraction.grounded_share:.0%} of the fields are grounded; found by {extraction.model}{instead}{known}.\n"
        f"cost {money(used.cost)} for {used.input_tokens} + {used.output_tokens} tokens in {calls}{pending}\n"
        f"{replaced(extraction.anonymised)}"
    )


def _not_found(extraction: fields_pb2.Extraction, wanted: Collection[str]) -> Iterator[str]:
    """Pointers of properties of which nothing was found, but for those that are told as missing anyway."""
    found = {field.pointer.split("/")[1] for field in extraction.fields if field.pointer}
    for name in wanted:
        step = name.replace("~", "~0").replace("/", "~1")
        if step not in found and f"/{step}" not in extraction.missing_required:
            yield f"/{step}"


def _shown(value: Any) -> str:
    return json_text(json_format.MessageToDict(value))


def _check(extraction: fields_pb2.Extraction, *, request_id: str) -> None:
    """Raises Failure INCOMPLETE where pages are missing, or the schema is not satisfied."""
    if extraction.failed_pages:
        pages = ", ".join(map(str, extraction.failed_pages))
        message = f"Pages that could not be read were not looked at: {pages}."
        raise Failure(message, ExitCode.INCOMPLETE, "PAGES_FAILED", request_id=request_id)
    if not extraction.valid:
        message = "The answer does not satisfy the schema; see the lines above."
        raise Failure(message, ExitCode.INCOMPLETE, "SCHEMA_VIOLATED", request_id=request_id)
