"""Every part of the stack down, hanging or killed in turn: a typed answer, nothing half-written, and then it works."""

import hashlib
from collections.abc import Iterator

import pytest
from google.protobuf.message import Message

from pagemesh_cli.stack.process import wait_until
from tests.chaos.conftest import WHOAMI, Hurt
from tests.edge.conftest import UPLOAD, chunks

SUMMARIZE = "pagemesh.summarizer.v1.SummarizerService/Summarize"
EXTRACT = "pagemesh.extractor.v1.ExtractorService/ExtractPages"
GET = "pagemesh.extractor.v1.ExtractorService/GetDocument"
USAGE = "pagemesh.ledger.v1.LedgerService/QueryUsage"
MISTRAL = {"model": "mistral/mistral-small-latest"}


@pytest.mark.parametrize("way", ["grpc", "json"])
@pytest.mark.parametrize(
    ("behaviours", "codes", "reason"),
    [
        (["500"] * 8, ("UNAVAILABLE", 503), "PROVIDER_UNAVAILABLE"),
        (["hang"], ("DEADLINE_EXCEEDED", 504), ""),
        (["429:6"] * 8, ("RESOURCE_EXHAUSTED", 429), "PROVIDER_RATE_LIMITED"),
        (["401"], ("FAILED_PRECONDITION", 400), "PROVIDER_CREDENTIAL"),
        (["422"], ("INVALID_ARGUMENT", 400), "PROVIDER_REFUSED"),
        (["invalid_json"], ("UNAVAILABLE", 503), "PROVIDER_INVALID_ANSWER"),
        (["cut"], ("UNAVAILABLE", 503), "PROVIDER_UNAVAILABLE"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_provider_that_fails(
    hurt: Hurt, way: str, behaviours: list[str], codes: tuple[str, int], reason: str
) -> None:
    request = {"document": hurt.uploaded(), "options": MISTRAL}
    hurt.provider.script(*behaviours)
    failed = hurt.one_way(way, SUMMARIZE, request, timeout_s=5 if behaviours[0] in ("hang", "429:6") else 30)
    assert failed.code == codes[0], failed
    assert failed.http in (0, codes[1])
    assert reason in ("", failed.reason)
    # A model that is to be left alone for longer than the caller waits is told at once; who waits longer has it.
    if codes[0] == "RESOURCE_EXHAUSTED":
        assert way == "json" or int(failed.retry_after) > 1
    hurt.provider.script()
    again = hurt.one_way(way, SUMMARIZE, request)
    assert again.code == "OK", again
    assert again.messages[0]["summary"]["model"] == MISTRAL["model"]


def test_a_caller_who_leaves_takes_the_provider_call_along(hurt: Hurt) -> None:
    before = hurt.provider.books.cancelled
    document = hurt.uploaded()
    hurt.provider.script("hang")
    left = hurt.call(SUMMARIZE, {"document": document, "options": MISTRAL}, timeout_s=5)
    assert left.code == "DEADLINE_EXCEEDED"
    assert wait_until(lambda: hurt.provider.books.cancelled > before, timeout_s=10)
    hurt.provider.script()


def test_the_ledger_hangs(hurt: Hurt) -> None:
    with hurt.frozen("ledger"):
        over_grpc = hurt.call(WHOAMI, {})
        over_json = hurt.edge.json(WHOAMI, {}, hurt.key)
        assert (over_grpc.code, over_grpc.reason) == ("UNAVAILABLE", "AUTHORIZER_UNAVAILABLE"), over_grpc
        assert (over_json.http, over_json.code) == (503, "UNAVAILABLE"), over_json
        name, content = hurt.new_document()
        assert hurt.upload(content).code == "UNAVAILABLE"
        assert hurt.edge.json(UPLOAD, {}, hurt.key, body=content).http == 503
    assert hurt.call(GET, {"name": name}).code == "NOT_FOUND"
    assert hurt.upload(content).code == "OK"


def test_the_cache_hangs(hurt: Hurt) -> None:
    document = hurt.uploaded()
    with hurt.frozen("valkey"):
        for answer in hurt.both_ways(SUMMARIZE, {"document": document}):
            assert answer.code == "OK", answer
            assert not answer.messages[0]["summary"].get("cached")


def test_the_cache_is_killed_and_comes_back_empty(hurt: Hurt) -> None:
    document = hurt.uploaded()
    assert hurt.call(SUMMARIZE, {"document": document}).code == "OK"
    hurt.kill("valkey")
    answer = hurt.call(SUMMARIZE, {"document": document})
    assert answer.code == "OK", answer

    def cached() -> bool:
        return bool(hurt.call(SUMMARIZE, {"document": document}).messages[0]["summary"].get("cached"))

    assert wait_until(cached, timeout_s=60)


def test_postgres_hangs(hurt: Hurt) -> None:
    document = hurt.uploaded()
    name, content = hurt.new_document()
    calls = hurt.provider.calls
    with hurt.frozen("postgres"):
        refused = [
            hurt.upload(content, timeout_s=3),
            *hurt.both_ways(GET, {"name": document}, timeout_s=3),
            *hurt.both_ways(SUMMARIZE, {"document": document, "options": MISTRAL}, timeout_s=3),
            *hurt.both_ways(EXTRACT, {"name": document}, timeout_s=3),
            *hurt.both_ways(USAGE, {}, timeout_s=3),
        ]
        assert {outcome.http for outcome in refused} <= {0, 503, 504}, refused
        assert {outcome.code for outcome in refused} <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}, refused
    assert hurt.provider.calls == calls, "nothing is paid for while the books are closed"
    assert hurt.call(GET, {"name": name}).code in ("NOT_FOUND", "OK")
    assert hurt.upload(content).code == "OK"
    assert hurt.call(SUMMARIZE, {"document": document, "options": MISTRAL}).code == "OK"


@pytest.mark.parametrize("part", ["ledger", "extractor", "summarizer", "postgres", "edge"])
def test_a_part_is_killed(hurt: Hurt, part: str) -> None:
    document = hurt.uploaded()
    restarts = hurt.part(part).restarts
    hurt.kill(part)
    seen: set[str] = set()

    def works_again() -> bool:
        outcome = hurt.call(SUMMARIZE, {"document": document, "options": MISTRAL}, timeout_s=10)
        seen.add(outcome.code if outcome.code == "OK" else f"{outcome.code} {outcome.reason}")
        return outcome.code == "OK" and hurt.part(part).restarts > restarts

    assert wait_until(works_again, timeout_s=60), seen
    assert {code.split()[0] for code in seen} <= {"OK", "UNAVAILABLE", "DEADLINE_EXCEEDED"}, seen
    hurt.recovered()


def test_the_extractor_is_killed_amid_an_upload(hurt: Hurt) -> None:
    """Nothing of it is there, neither as a document nor on disk; the same upload works as soon as somebody listens."""
    content = hurt.new_document()[1].ljust(3_000_000, b"\n")
    name = f"documents/{hashlib.sha256(content).hexdigest()[:32]}"
    restarts = hurt.part("extractor").restarts
    spool = hurt.data.folder("spool")

    def cut_midway() -> Iterator[Message]:
        first, *rest = chunks(content)
        yield first
        assert wait_until(lambda: any(spool.iterdir()), timeout_s=20)
        hurt.kill("extractor")
        yield from rest

    broken = hurt.edge.grpc(UPLOAD, cut_midway(), hurt.key)
    assert broken.code == "UNAVAILABLE", broken
    assert wait_until(lambda: hurt.part("extractor").restarts > restarts, timeout_s=60)
    hurt.recovered()
    assert list(spool.iterdir()) == []
    assert hurt.call(GET, {"name": name}).code == "NOT_FOUND"
    assert hurt.upload(content).code == "OK"


def test_the_extractor_hangs(hurt: Hurt) -> None:
    document = hurt.uploaded()
    with hurt.frozen("extractor"):
        for outcome in hurt.both_ways(SUMMARIZE, {"document": document, "options": MISTRAL}, timeout_s=3):
            assert outcome.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"), outcome
            assert outcome.http in (0, 503, 504)
    # The summarizer's breaker rests a while before it asks again.
    assert wait_until(
        lambda: hurt.call(SUMMARIZE, {"document": document, "options": MISTRAL}).code == "OK", timeout_s=60
    )


def test_what_was_billed_is_in_the_books(hurt: Hurt) -> None:
    """Invariants 1 and 3, after all that this module did: what the provider charged is recorded, or still held."""
    recorded, held = hurt.query(
        """
        SELECT (SELECT coalesce(sum(input_tokens), 0)::bigint FROM ledger.usage_records WHERE model LIKE 'mistral/%'),
               (SELECT coalesce(sum(max_input_tokens), 0)::bigint FROM ledger.holds
                WHERE model LIKE 'mistral/%' AND state IN ('HELD', 'UNKNOWN'))
        """
    )
    charged = hurt.provider.books.input_tokens
    assert recorded <= charged <= recorded + held, (recorded, charged, held)


@pytest.mark.parametrize("timeout", [0.001, 0.005])
def test_a_deadline_that_nobody_can_keep(hurt: Hurt, timeout: float) -> None:
    document = hurt.uploaded()
    for outcome in hurt.both_ways(SUMMARIZE, {"document": document}, timeout_s=timeout):
        assert outcome.code == "DEADLINE_EXCEEDED", outcome
        assert outcome.http in (0, 408, 504)  # 408: the edge had not even read all of it
    assert hurt.call(SUMMARIZE, {"document": document}).code == "OK"


def test_uploads_go_on_working(hurt: Hurt) -> None:
    assert hurt.edge.json(UPLOAD, {}, hurt.key, body=hurt.new_document()[1]).http == 200
