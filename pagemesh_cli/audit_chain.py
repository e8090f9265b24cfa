"""The proof of an audit export, from the file alone: the rules of docs/audit.md, written apart from the ledger's."""

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FORMAT = "pagemesh-audit-v1"
RETENTION_ACTION = "pagemesh.ledger.v1.AuditRetention"
MAX_LINE_BYTES = 64 * 1024
"""No record comes near it."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_BEGIN: dict[str, type] = {"kind": str, "format": str, "tenant": str, "sequence": int, "hash": str, "partial": bool}
_HEAD: dict[str, type] = {"kind": str, "sequence": int, "hash": str}
_RECORD: dict[str, type] = {
    "kind": str,
    "sequence": int,
    "record_time": str,
    "event_id": str,
    "occur_time": str,
    "request_id": str,
    "actor": str,
    "client": str,
    "action": str,
    "resource": str,
    "code": int,
    "reason": str,
    "duration_micros": int,
    "details": dict,
    "previous_hash": str,
    "hash": str,
}


class BadRow(Exception):
    """The first line that does not hold. `sequence` is the place in the chain, as far as the line says one."""

    def __init__(self, line: int, sequence: int | None, why: str) -> None:
        super().__init__(why)
        self.line, self.sequence, self.why = line, sequence, why


@dataclass(frozen=True)
class Place:
    """A place in a chain, as `SEQUENCE:HASH` says it."""

    sequence: int
    hash: str


@dataclass
class Proof:
    """What an export is proof of."""

    tenant: str
    begin: Place
    end: Place
    records: int
    partial: bool
    unproven: list[str] = field(default_factory=list)
    """What only somebody can know who kept a place of the chain elsewhere."""


def verify(lines: Iterable[bytes], pinned: Sequence[Place] = ()) -> Proof:
    """Reads an export, a line at a time. `pinned` are places that were written down earlier: each must be in it.

    Raises BadRow with the first line that does not hold.
    """
    checker = _Checker(pinned)
    number = 0
    for number, line in enumerate(lines, start=1):
        checker.line(number, line)
    return checker.end(number + 1)


def encode(row: Mapping[str, Any], tenant: str) -> bytes:
    """The bytes that the hash of a record is over, behind the hash before it."""
    texts = [
        FORMAT,
        tenant,
        str(row["sequence"]),
        _micros(row["record_time"]),
        row["event_id"],
        _micros(row["occur_time"]),
        row["request_id"],
        row["actor"],
        row["client"],
        row["action"],
        row["resource"],
        str(row["code"]),
        row["reason"],
        str(row["duration_micros"]),
    ]
    details = b"".join(_packed(key) + _packed(row["details"][key]) for key in sorted(row["details"]))
    return b"".join(map(_packed, texts)) + len(details).to_bytes(4, "big") + details


def genesis(tenant: str) -> str:
    """The hash that the first record of a tenant, `tenants/{id}`, follows."""
    return hashlib.sha256(b"".join(map(_packed, (FORMAT, "genesis", tenant)))).hexdigest()


class _Checker:
    def __init__(self, pinned: Sequence[Place]) -> None:
        self._pinned = {place.sequence: place.hash for place in pinned}
        self._begin: dict[str, Any] | None = None
        self._head: dict[str, Any] | None = None
        self._last = Place(0, "")
        self._records = 0
        self._beginning_told = False

    def line(self, number: int, line: bytes) -> None:
        row = _parsed(number, line)
        if self._head is not None:
            raise BadRow(number, row.get("sequence"), "there is something behind the head, which ends an export")
        if self._begin is None:
            self._first(number, row)
        elif row["kind"] == "head":
            _shaped(number, row, _HEAD)
            self._head = row
            self._ends_with(number, Place(row["sequence"], row["hash"]))
        else:
            self._record(number, row)

    def _first(self, number: int, row: dict[str, Any]) -> None:
        if row["kind"] != "begin":
            raise BadRow(number, row.get("sequence"), "the line that begins an export is missing")
        _shaped(number, row, _BEGIN)
        if row["format"] != FORMAT:
            raise BadRow(number, None, f"the format {row['format']!r} is not known; this command knows {FORMAT}")
        self._begin, self._last = row, Place(row["sequence"], row["hash"])
        if row["sequence"] == 0 and row["hash"] != genesis(row["tenant"]):
            raise BadRow(number, 0, "the chain does not begin with the hash of its tenant")
        self._check_pinned(number, self._last)

    def _record(self, number: int, row: dict[str, Any]) -> None:
        assert self._begin is not None
        if row["kind"] != "record":
            raise BadRow(number, None, f"a line of kind {row['kind']!r} has no place here")
        _shaped(number, row, _RECORD)
        sequence, expected = row["sequence"], self._last.sequence + 1
        if sequence != expected:
            raise BadRow(number, sequence, _misplaced(sequence, expected))
        if row["previous_hash"] != self._last.hash:
            raise BadRow(number, sequence, "it is not chained to the record before it: one of the two was changed")
        try:
            data = bytes.fromhex(self._last.hash) + encode(row, self._begin["tenant"])
        except ValueError as error:
            raise BadRow(number, sequence, f"it cannot be hashed: {error}") from error
        if hashlib.sha256(data).hexdigest() != row["hash"]:
            raise BadRow(number, sequence, "its hash is not the hash of what it says: it was changed")
        self._last = Place(sequence, row["hash"])
        self._records += 1
        self._check_pinned(number, self._last)
        if row["action"] == RETENTION_ACTION and row["actor"] == "system/retention":
            told = (row["details"].get("last_sequence"), row["details"].get("last_hash"))
            self._beginning_told |= told == (str(self._begin["sequence"]), self._begin["hash"])

    def _check_pinned(self, number: int, place: Place) -> None:
        wanted = self._pinned.pop(place.sequence, place.hash)
        if wanted != place.hash:
            raise BadRow(number, place.sequence, "its hash is not the one that was written down elsewhere")

    def _ends_with(self, number: int, head: Place) -> None:
        if head.sequence > self._last.sequence:
            missing = f"{self._last.sequence + 1} to {head.sequence}"
            raise BadRow(number, self._last.sequence + 1, f"records {missing} are missing in front of the head")
        if head != self._last:
            raise BadRow(
                number, head.sequence, "the head is not the last record: records were added or the head changed"
            )

    def end(self, number: int) -> Proof:
        if self._begin is None or self._head is None:
            raise BadRow(number, self._last.sequence + 1, "the export ends here without its head: it was cut off")
        late = self._begin["sequence"] > 0
        # Nothing from before the beginning is in the file, whoever wrote it down.
        open_places = sorted(s for s in self._pinned if s > self._begin["sequence"])
        if open_places:
            why = f"record {open_places[0]}, which was written down elsewhere, is missing: the end was cut off"
            raise BadRow(number, open_places[0], why)
        if late and not self._begin["partial"] and not self._beginning_told:
            why = "the chain begins late, and none of its records says that its beginning was dropped: it was cut off"
            raise BadRow(1, self._begin["sequence"] + 1, why)
        proof = Proof(
            tenant=self._begin["tenant"],
            begin=Place(self._begin["sequence"], self._begin["hash"]),
            end=self._last,
            records=self._records,
            partial=self._begin["partial"],
        )
        proof.unproven += [f"record {s} is older than this export" for s in sorted(self._pinned)]
        return proof


def _misplaced(sequence: int, expected: int) -> str:
    if sequence < expected:
        return f"record {expected} is expected here: this one is repeated, or out of its order"
    if sequence == expected + 1:
        return f"record {expected} is missing in front of it, or out of its order"
    return f"records {expected} to {sequence - 1} are missing in front of it, or out of their order"


def _parsed(number: int, line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise BadRow(number, None, "the line is longer than any of an export")
    try:
        row = json.loads(line, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadRow(number, None, f"it is not a JSON object: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        raise BadRow(number, None, "it is not a line of an export")
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What one reader sees, every reader shall see."""
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a name is there twice")
    return row


def _shaped(number: int, row: Mapping[str, Any], shape: Mapping[str, type]) -> None:
    sequence = row.get("sequence") if isinstance(row.get("sequence"), int) else None
    if row.keys() != shape.keys():
        raise BadRow(number, sequence, f"fields were added or removed: {', '.join(sorted(row.keys() ^ shape.keys()))}")
    for name, kind in shape.items():
        if type(row[name]) is not kind:
            raise BadRow(number, sequence, f"the field {name} is not of its kind")
    if "details" in shape and not all(isinstance(value, str) for value in row["details"].values()):
        raise BadRow(number, sequence, "the field details is not of its kind")


def _micros(text: str) -> str:
    time = dt.datetime.strptime(text, _TIME).replace(tzinfo=dt.UTC)
    if time.strftime(_TIME) != text:  # one way to write a time
        raise ValueError(f"{text!r} is not how an export writes a time")
    return str((time - _EPOCH) // dt.timedelta(microseconds=1))


def _packed(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4, "big") + data
