"""Usage records as lines of a file, for spreadsheets (CSV) and programs (NDJSON)."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import Enum

from services.ledger.domain.usage_values import ExportedRecord
from services.ledger.domain.values import CURRENCY

COLUMNS = (
    "occur_time",
    "event_id",
    "model",
    "operation",
    "input_tokens",
    "output_tokens",
    "cost_micros",
    "currency",
    "price_book_version",
    "api_key",
    "user",
    "project",
    "job",
    "document",
    "request_id",
    "hold_id",
    "record_time",
    "tags",
)
"""In this order; new ones are added at the end."""

PIECE_BYTES = 256 * 1024
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet may take for the beginning of a formula (OWASP, CSV injection)."""


class ExportFormat(Enum):
    """How a file is written; the value is its content type."""

    CSV = "text/csv; charset=utf-8"
    NDJSON = "application/x-ndjson"


def first_line(form: ExportFormat) -> bytes:
    """The names of the columns, where the format has such a line."""
    return _csv([COLUMNS]) if form is ExportFormat.CSV else b""


def pieces(records: Iterable[ExportedRecord], form: ExportFormat) -> Iterator[bytes]:
    """The records as whole lines, in pieces of about PIECE_BYTES."""
    lines: list[bytes] = []
    size = 0
    for record in records:
        line = _csv([map(_harmless, _row(record).values())]) if form is ExportFormat.CSV else _json(record)
        lines.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield b"".join(lines)
            lines, size = [], 0
    if lines:
        yield b"".join(lines)


def _row(exported: ExportedRecord) -> dict[str, str | int]:
    record, event = exported.record, exported.record.event
    values = (
        _time(event.occur_time),
        str(event.event_id),
        event.model,
        event.operation,
        event.tokens.sent,
        event.tokens.received,
        record.cost_micros,
        CURRENCY,
        record.price_book_version,
        record.actor,
        exported.user,
        record.project,
        event.job,
        event.document,
        event.request_id,
        "" if record.hold_id is None else str(record.hold_id),
        _time(record.record_time),
        json.dumps(dict(event.tags), ensure_ascii=False, sort_keys=True, separators=(",", ":")) if event.tags else "",
    )
    return dict(zip(COLUMNS, values, strict=True))


def _json(exported: ExportedRecord) -> bytes:
    row = {**_row(exported), "tags": dict(exported.record.event.tags)}
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _csv(rows: Iterable[Iterable[str | int]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _harmless(value: str | int) -> str | int:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
