"""The offline proof: every way to tamper with an export, and where it is found; in memory that does not grow."""

import json
import subprocess
import sys
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemesh_cli.audit_chain import BadRow, Place, verify
from services.ledger.api import audit_mapping
from services.ledger.domain.audit import RETENTION_ACTION, AuditEvent, ChainHead
from services.ledger.domain.audit_chain import extend, genesis
from tests.unit.ledger.samples import NOW

Rows = list[dict[str, Any]]


def exported(
    count: int = 8, *, begin: ChainHead | None = None, partial: bool = False, told: bool = False
) -> list[bytes]:
    """The lines that a ledger would send."""
    events = [
        AuditEvent(
            uuid.UUID(int=n), "acme", NOW + timedelta(seconds=n), "x.Y/Z", actor=f"apiKeys/{n}", details={"n": str(n)}
        )
        for n in range(count)
    ]
    begin = begin or genesis("acme")
    if told:
        details = {"last_sequence": str(begin.sequence), "last_hash": begin.hash.hex()}
        events.append(
            AuditEvent(uuid.uuid4(), "acme", NOW, RETENTION_ACTION, actor="system/retention", details=details)
        )
    records = extend(begin, events, NOW)
    lines = [audit_mapping.begin_line("acme", begin, partial=partial), *map(audit_mapping.record_line, records)]
    return [*lines, audit_mapping.head_line(records[-1].head if records else begin)]


def rows() -> Rows:
    return [json.loads(line) for line in exported()]


def lines(of: Rows) -> list[bytes]:
    return [json.dumps(row).encode() + b"\n" for row in of]


def without(of: Rows, *places: int) -> Rows:
    return [row for index, row in enumerate(of) if index not in places]


def changed(of: Rows, place: int, **fields: Any) -> Rows:
    return [{**row, **fields} if index == place else row for index, row in enumerate(of)]


def swapped(of: Rows) -> Rows:
    return [*of[:3], of[4], of[3], *of[5:]]


# Line 1 begins the export; record n is line n + 1; the head is line 10.
BROKEN: dict[str, tuple[Callable[[Rows], Rows], int, int | None]] = {
    "actor changed": (lambda r: changed(r, 3, actor="apiKeys/framed"), 4, 3),
    "time changed": (lambda r: changed(r, 3, occur_time="2026-03-01T12:00:00.000000Z"), 4, 3),
    "time written otherwise": (lambda r: changed(r, 1, occur_time="2026-03-01T12:00:00.0Z"), 2, 1),
    "detail changed": (lambda r: changed(r, 3, details={"n": "9"}), 4, 3),
    "detail added": (lambda r: changed(r, 3, details={"n": "2", "m": ""}), 4, 3),
    "field added": (lambda r: changed(r, 3, note="x"), 4, 3),
    "number as text": (lambda r: changed(r, 3, code="0"), 4, 3),
    "truth as number": (lambda r: changed(r, 3, code=False), 4, 3),
    "hash changed": (lambda r: changed(r, 3, hash="0" * 64), 4, 3),
    "tenant changed": (lambda r: changed(r, 0, tenant="tenants/other"), 1, 0),
    "removed": (lambda r: without(r, 3), 4, 4),
    "first removed": (lambda r: without(r, 1), 2, 2),
    "last removed": (lambda r: without(r, 8), 9, 8),
    "repeated": (lambda r: [*r[:4], r[3], *r[4:]], 5, 3),
    "swapped": (swapped, 4, 4),
    "cut off": (lambda r: r[:5], 6, 5),
    "head removed": (lambda r: r[:-1], 10, 9),
    "beginning removed": (lambda r: r[1:], 1, 1),
    "empty": (lambda _: [], 1, 1),
    "behind the head": (lambda r: [*r, r[3]], 11, 3),
    "head lowered": (lambda r: changed(r, 9, sequence=7, hash=r[7]["hash"]), 10, 7),
    "head raised": (lambda r: changed(r, 9, sequence=9), 10, 9),
    "begins late": (lambda r: changed(without(r, 1, 2), 0, sequence=2, hash=r[2]["hash"]), 1, 3),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_first_bad_line_is_named(name: str) -> None:
    tamper, line, sequence = BROKEN[name]
    with pytest.raises(BadRow) as found:
        verify(lines(tamper(rows())))
    assert (found.value.line, found.value.sequence) == (line, sequence), found.value.why
    assert found.value.why


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"kind": 1}', b'{"kind": "record", "kind": "head"}', b"[" * 100_000],
)
def test_what_is_no_line_of_an_export(line: bytes) -> None:
    whole = exported()
    with pytest.raises(BadRow) as found:
        verify([*whole[:3], line + b"\n", *whole[3:]])
    assert found.value.line == 4


def test_what_other_readers_may_see_differently_is_refused() -> None:
    whole = exported()
    twice = whole[3].replace(b'"actor":', b'"actor":"apiKeys/framed","actor":')
    with pytest.raises(BadRow, match="twice") as found:
        verify([*whole[:3], twice, *whole[4:]])
    assert found.value.line == 4


def test_an_untouched_export_holds() -> None:
    proof = verify(exported())
    assert (proof.tenant, proof.records, proof.begin.sequence, proof.partial) == ("tenants/acme", 8, 0, False)
    assert verify(exported(0)).records == 0


def test_places_that_were_kept_elsewhere() -> None:
    whole = exported()
    third, last = json.loads(whole[3]), json.loads(whole[-1])
    places = [Place(3, third["hash"]), Place(8, last["hash"]), Place(0, genesis("acme").hash.hex())]
    assert verify(whole, places).unproven == []
    with pytest.raises(BadRow, match="written down elsewhere") as found:
        verify(whole, [Place(3, "0" * 64)])
    assert (found.value.line, found.value.sequence) == (4, 3)
    shorter = exported(5)
    with pytest.raises(BadRow, match="the end was cut off") as found:
        verify(shorter, [Place(8, last["hash"])])
    assert found.value.sequence == 8


def test_a_chain_that_begins_late_says_so_itself() -> None:
    begin = ChainHead(41, b"h" * 32, NOW)
    assert verify(exported(begin=begin, told=True)).begin.sequence == 41
    assert verify(exported(begin=begin, partial=True)).partial
    with pytest.raises(BadRow, match="none of its records says"):
        verify(exported(begin=begin))
    proof = verify(exported(begin=begin, told=True), [Place(7, "0" * 64)])
    assert proof.unproven == ["record 7 is older than this export"]


@given(st.integers(0, 9), st.data())
def test_no_byte_of_a_record_can_be_changed(place: int, data: st.DataObject) -> None:
    """But for spaces outside of strings and the ways to write one character, which are no change."""
    whole = exported()
    line = whole[place]
    at = data.draw(st.integers(0, len(line) - 2))
    other = data.draw(st.integers(0, 255))
    tampered = line[:at] + bytes([other]) + line[at + 1 :]
    try:
        same = json.loads(tampered) == json.loads(line)
    except ValueError:
        same = False
    if same or b"\n" in tampered[:-1]:
        return
    with pytest.raises(BadRow):
        verify([*whole[:place], tampered, *whole[place + 1 :]])


def test_memory_does_not_grow_with_the_export() -> None:
    def many(count: int) -> Iterator[bytes]:
        head = genesis("acme")
        yield audit_mapping.begin_line("acme", head, partial=False)
        for n in range(count):
            (record,) = extend(head, [AuditEvent(uuid.UUID(int=n), "acme", NOW, "x.Y/Z")], NOW)
            yield audit_mapping.record_line(record)
            head = record.head
        yield audit_mapping.head_line(head)

    verify(many(100))
    lines = list(many(5_000))  # beforehand: what makes them is not measured, and tracing it takes ten times as long
    tracemalloc.start()
    assert verify(iter(lines)).records == 5_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


def test_the_command_needs_no_service(tmp_path: Path) -> None:
    def run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "pagemesh_cli", "audit", "verify", *arguments]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        return subprocess.run(command, input=given, capture_output=True, check=False, env=environment, timeout=60)

    whole = exported()
    file = tmp_path / "export.ndjson"
    file.write_bytes(b"".join(whole))
    last = json.loads(whole[-1])
    good = run(str(file), "--head", f"8:{last['hash']}", "--json")
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["head"] == {"sequence": 8, "hash": last["hash"]}
    assert run("-", given=b"".join(whole)).returncode == 0
    file.write_bytes(b"".join([*whole[:3], *whole[4:]]))
    bad = run(str(file), "--json")
    assert bad.returncode == 1
    error = json.loads(bad.stderr)["error"]
    assert error["reason"] == "AUDIT_BROKEN"
    assert error["message"].startswith("line 4, record 4: record 3 is missing")
    assert run(str(file), "--head", "nonsense").returncode == 2
    assert run(str(tmp_path / "nothing")).returncode == 2
