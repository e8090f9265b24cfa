"""The border between the contract and the domain."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from pagemesh.ledger.v1 import ledger_service_pb2
from services.ledger.api import contract, mapping, usage_mapping
from services.ledger.api.check_servicer import CheckServicer
from services.ledger.api.identity_mapping import key_message
from services.ledger.domain.clients import ClientHasher
from services.ledger.domain.gate import Gate
from services.ledger.domain.identity import Authenticator, Denial
from services.ledger.domain.key_cache import KeyCache
from services.ledger.domain.keys import ApiKey
from services.ledger.domain.quotas import Quotas
from services.ledger.domain.values import Caller, Tokens, UsageEvent
from services.runtime.call import Identity, acting_as
from services.runtime.errors import InvalidArgument
from tests.unit.ledger.credentials import Shared, open_replica
from tests.unit.ledger.samples import HASHER, NOW, FixedClock, Stores, a_hold, a_key_ring, a_record, open_stores
from xdsapi.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

times = st.datetimes(datetime(1970, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
events = st.builds(
    UsageEvent,
    event_id=st.uuids(),
    model=texts,
    tokens=st.builds(Tokens, st.integers(0, 10**9), st.integers(0, 10**9)),
    operation=texts,
    document=texts,
    request_id=texts,
    occur_time=times,
    tags=st.dictionaries(texts, texts, max_size=3),
)


@given(events)
def test_an_event_comes_back_as_it_was_told(event: UsageEvent) -> None:
    message = mapping.record_message(a_record(event)).event
    assert mapping.event_of(message, "event") == event


@given(st.integers(1, 86_400), st.integers(0, 999_999_999))
def test_lengths_are_cut_to_microseconds(seconds: int, nanos: int) -> None:
    length = mapping.ttl_of(Duration(seconds=seconds, nanos=nanos))
    assert length == timedelta(seconds=seconds, microseconds=nanos // 1000)


@pytest.mark.parametrize("seconds", [10**12, -(10**12), 253_402_300_800])
def test_what_is_no_time_is_named(seconds: int) -> None:
    with pytest.raises(InvalidArgument) as refused:
        mapping.time_of(Timestamp(seconds=seconds), "event.occur_time")
    assert [f.field for f in refused.value.fields] == ["event.occur_time"]


def test_messages_name_what_is_absent_as_absent() -> None:
    key = key_message(ApiKey("k" * 16, "acme", "robot", frozenset({"b.c", "a.b"}), NOW))
    assert (key.name, list(key.scopes)) == ("apiKeys/" + "k" * 16, ["a.b", "b.c"])
    assert not key.HasField("expire_time")
    assert not key.HasField("revoke_time")
    assert mapping.record_message(a_record(_event())).hold_id == ""
    selection = usage_mapping.selection_of(ledger_service_pb2.QueryUsageRequest(), "acme")
    assert (selection.start, selection.end) == (None, None)
    hold = a_hold()
    assert mapping.hold_message(hold).hold_id == str(hold.hold_id)


def test_the_contract_names_the_scopes() -> None:
    assert contract.scopes() >= {"documents.read", "keys.admin", "users.read"}
    assert {contract.LEDGER, contract.IDENTITY, contract.AUDIT, contract.CREDENTIALS} < set(contract.service_names())


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    async with open_stores("memory", lambda _: "") as opened:
        yield opened


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("pagemesh_ledger_checks_total", {"outcome": outcome}) or 0.0


async def test_every_outcome_of_a_check_is_counted_and_only_its_own(stores: Stores) -> None:
    clock, scopes = FixedClock(), frozenset({"usage.read"})
    cache = KeyCache(max_keys=1, ttl_s=1, monotonic_s=lambda: 0.0)
    ring = a_key_ring(stores, clock, scopes=scopes)
    maker = Caller("acme", "test", scopes)
    _, good = await ring.create(maker, "good", scopes, None)
    revoked, ended = await ring.create(maker, "revoked", scopes, None)
    await ring.revoke(maker, revoked.key_id)
    _, expired = await ring.create(maker, "expired", scopes, NOW + timedelta(seconds=1))
    clock.now += timedelta(seconds=2)
    authenticator = Authenticator(keys=stores.keys, hasher=HASHER, cache=cache, clock=clock, monotonic_s=lambda: 0.0)
    replica = await open_replica(Shared())
    gate = Gate(
        keys=authenticator,
        sessions=replica.check,
        issuers=replica.issuers,
        signatures=replica.signatures,
        certificates=replica.certificates,
        browsers=replica.cookies,
    )
    servicer = CheckServicer(gate, Quotas(store=stores.quotas, monotonic_s=lambda: 0.0), ClientHasher("c" * 32))
    cases = {
        "ok": good,
        Denial.MISSING.value: "",
        Denial.MALFORMED.value: "pm_x",
        Denial.UNKNOWN.value: "pm_" + "0" * 16 + "_" + "s" * 43,
        Denial.REVOKED.value: ended,
        Denial.EXPIRED.value: expired,
    }
    answers = set()
    for outcome, credential in cases.items():
        before = {name: counted(name) for name in cases}
        request = CheckRequest()
        request.attributes.request.http.headers["x-api-key"] = credential
        with acting_as(Identity("", "", "", frozenset()), request_id="request-of-envoy"):
            answer = await servicer.Check(request, None)  # type: ignore[arg-type]
        assert {name for name in cases if counted(name) != before[name]} == {outcome}
        if outcome != "ok":
            answers.add(answer.SerializeToString(deterministic=True))
    assert len(answers) == 1, "a caller must not learn why it is denied"


def _event() -> UsageEvent:
    return UsageEvent(uuid.uuid4(), "m/m", Tokens(1, 1), "op", "", "", NOW)
