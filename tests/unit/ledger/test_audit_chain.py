"""The encoding of audit records: different records never share their bytes, and the offline proof agrees."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemesh_cli import audit_chain as offline
from services.ledger.api import audit_mapping
from services.ledger.domain import audit_chain
from services.ledger.domain.audit import AuditEvent, ChainHead
from services.ledger.domain.clients import ClientHasher
from tests.unit.ledger.samples import NOW

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TIMES = st.integers(0, 2**57).map(lambda n: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=n))
EVENTS = st.builds(
    AuditEvent,
    event_id=st.uuids(),
    tenant=st.sampled_from(["acme", "acme2", "other"]),
    occur_time=TIMES,
    action=TEXT,
    request_id=TEXT,
    actor=TEXT,
    client=st.sampled_from(["", "0" * 32]),
    resource=TEXT,
    code=st.integers(0, 16),
    reason=TEXT,
    duration_micros=st.integers(0, 2**62),
    details=st.dictionaries(TEXT.filter(bool), TEXT, max_size=3),
)
ROWS = st.tuples(EVENTS, st.integers(1, 2**62), TIMES)


@given(ROWS, ROWS)
def test_different_records_have_different_bytes(
    one: tuple[AuditEvent, int, datetime], other: tuple[AuditEvent, int, datetime]
) -> None:
    assert (audit_chain.encode(*one) == audit_chain.encode(*other)) == (one == other)


@given(EVENTS, st.sampled_from(["request_id", "actor", "action", "resource", "reason"]))
def test_text_cannot_move_from_one_field_into_the_next(event: AuditEvent, name: str) -> None:
    names = ["request_id", "actor", "client", "action", "resource", "code", "reason"]
    following = (
        next(n for n in names[names.index(name) + 1 :] if n not in ("client", "code")) if name != "reason" else ""
    )
    if not following:
        return
    moved = {name: getattr(event, name) + getattr(event, following), following: ""}
    values = {f: getattr(event, f) for f in AuditEvent.__dataclass_fields__} | moved
    other = AuditEvent(**values)
    assert (audit_chain.encode(other, 1, NOW) == audit_chain.encode(event, 1, NOW)) == (other == event)


@given(ROWS)
def test_the_proof_has_the_same_bytes(row: tuple[AuditEvent, int, datetime]) -> None:
    event, sequence, time = row
    (record,) = audit_chain.extend(ChainHead(sequence - 1, b"h" * 32), [event], time)
    told = json.loads(audit_mapping.record_line(record))
    assert offline.encode(told, f"tenants/{event.tenant}") == audit_chain.encode(event, sequence, time)
    assert offline.genesis(f"tenants/{event.tenant}") == audit_chain.genesis(event.tenant).hash.hex()


def test_the_promised_bytes() -> None:
    """Written out by hand: what was chained once must verify for ever."""
    event = AuditEvent(
        event_id=uuid.UUID(int=1),
        tenant="acme",
        occur_time=datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC),
        action="a/B",
        actor="apiKeys/k",
        details={"b": "2", "a": "1"},
    )

    def field(text: str) -> bytes:
        return bytes([0, 0, 0, len(text)]) + text.encode()

    details = field("a") + field("1") + field("b") + field("2")
    texts = ["pagemesh-audit-v1", "tenants/acme", "7", "2000000", str(uuid.UUID(int=1)), "1000005", "", "apiKeys/k", ""]
    wanted = b"".join(map(field, [*texts, "a/B", "", "0", "", "0"])) + bytes([0, 0, 0, len(details)]) + details
    assert audit_chain.encode(event, 7, datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)) == wanted
    assert audit_chain.genesis("acme").hash.hex() == (
        "cfad9446e8342df4ce20016bd9aa353138a25f8e25f59b4f192a4e9698927619"
    )


def test_time_never_runs_back_within_a_chain() -> None:
    head = ChainHead(3, b"h" * 32, NOW)
    event = AuditEvent(uuid.uuid4(), "acme", NOW, "a")
    earlier, later = NOW - timedelta(days=40), NOW + timedelta(seconds=1)
    assert audit_chain.extend(head, [event], earlier)[0].record_time == NOW
    assert audit_chain.extend(head, [event], later)[0].record_time == later


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("2001:db8::1", "2001:0db8:0:0::1", True),
        ("192.0.2.7", "192.0.2.8", False),
    ],
)
def test_a_client_is_its_address_however_it_is_written(one: str, other: str, same: bool) -> None:
    hasher = ClientHasher("s" * 32)
    assert (hasher.hash("acme", one) == hasher.hash("acme", other)) == same
    assert hasher.hash("acme", one) != hasher.hash("other", one)
    assert hasher.hash("acme", one) != ClientHasher("t" * 32).hash("acme", one)
    assert len(hasher.hash("acme", one)) == 32


def test_what_is_no_address_is_no_client() -> None:
    assert ClientHasher("s" * 32).hash("acme", "/run/edge.sock") == ""
