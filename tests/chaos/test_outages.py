"""Every part of the stack down, hanging or killed in turn: a typed answer, nothing half-written, and then it works."""

import pytest

from pagemesh_cli.stack.process import wait_until
from tests.chaos.conftest import WHOAMI, Hurt
from tests.edge.conftest import UPLOAD

SUMMARIZE = "pagemesh.summarizer.v1.SummarizerService/Summarize"
EXTRACT = "pagemesh.extractor.v1.ExtractorService/ExtractPages"
GET = "pagemesh.extractor.v1.ExtractorService/GetDocument"
USAGE = "pagemesh.ledger.v1.LedgerService/QueryUsage"
MISTRAL = {"model": "mistral/mistral-small-latest"}


@pytest.mark.parametrize(
    ("behaviours", "code", "reason"),
    [
        (["500"] * 8, "UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
        (["hang"], "DEADLINE_EXCEEDED", ""),
        (["429:60"] * 8, "RESOURCE_EXHAUSTED", "PROVIDER_RATE_LIMITED"),
        (["401"], "PERMISSION_DENIED", "PROVIDER_CREDENTIAL"),
        (["422"], "INVALID_ARGUMENT", "PROVIDER_REFUSED"),
        (["invalid_json"], "UNAVAILABLE", "PROVIDER_INVALID_ANSWER"),
        (["cut"], "UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_provider_that_fails(hurt: Hurt, behaviours: list[str], code: str, reason: str) -> None:
    document = hurt.uploaded()
    hurt.provider.script(*behaviours)
    failed = hurt.call(SUMMARIZE, {"document": document, "options": MISTRAL}, timeout_s=5)
    assert failed.code == code, failed
    assert reason in ("", failed.reason)
    if code == "RESOURCE_EXHAUSTED":
        assert int(failed.retry_after) > 1
    hurt.provider.script()
    again = hurt.call(SUMMARIZE, {"document": document, "options": MISTRAL})
    assert again.code == "OK", again
    assert again.messages[0]["summary"]["model"] == MISTRAL["model"]


def test_a_failing_provider_over_json(hurt: Hurt) -> None:
    document = hurt.uploaded()
    hurt.provider.script("429:60")
    refused = hurt.edge.json(SUMMARIZE, {"document": document, "options": MISTRAL}, hurt.key)
    assert (refused.http, refused.reason) == (429, "PROVIDER_RATE_LIMITED"), refused
    hurt.provider.script("hang")
    late = hurt.edge.json(
        SUMMARIZE, {"document": document, "options": MISTRAL}, hurt.key, headers={"grpc-timeout": "2S"}
    )
    assert (late.http, late.code) == (504, "DEADLINE_EXCEEDED"), late
    hurt.provider.script()


def test_a_caller_who_leaves_takes_the_provider_call_along(hurt: Hurt) -> None:
    before = hurt.provider.books.cancelled
    document = hurt.uploaded()
    hurt.provider.script("hang")
    left = hurt.call(SUMMARIZE, {"document": document, "options": MISTRAL}, timeout_s=1)
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
    assert hurt.call(GET, {"name": name}).code == "NOT_FOUND"
    assert hurt.upload(content).code == "OK"


def test_the_cache_hangs(hurt: Hurt) -> None:
    document = hurt.uploaded()
    with hurt.frozen("valkey"):
        for _ in range(2):
            answer = hurt.call(SUMMARIZE, {"document": document})
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
            hurt.call(GET, {"name": document}, timeout_s=3),
            hurt.upload(content, timeout_s=3),
            hurt.call(SUMMARIZE, {"document": document, "options": MISTRAL}, timeout_s=3),
            hurt.call(EXTRACT, {"name": document}, timeout_s=3),
            hurt.call(USAGE, {}, timeout_s=3),
        ]
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


def test_the_extractor_hangs(hurt: Hurt) -> None:
    document = hurt.uploaded()
    with hurt.frozen("extractor"):
        outcome = hurt.call(SUMMARIZE, {"document": document, "options": MISTRAL}, timeout_s=3)
        assert outcome.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"), outcome
    assert hurt.call(SUMMARIZE, {"document": document, "options": MISTRAL}).code == "OK"


def test_what_was_billed_is_in_the_books(hurt: Hurt) -> None:
    """Invariant 1, after all that this module did: each answer that the provider charged for has a record or a hold."""
    total, token = 0, ""
    for _ in range(50):
        answer = hurt.call(USAGE, {"page_size": 1000, "page_token": token}).messages[0]
        records = [r["event"] for r in answer.get("records", []) if r["event"]["model"].startswith("mistral/")]
        total += sum(int(event.get("inputTokens", 0)) for event in records)
        token = answer.get("nextPageToken", "")
        if not token:
            break
    open_holds = int(answer.get("held", {}).get("micros", 0))
    assert total == hurt.provider.books.input_tokens or open_holds > 0
    assert total <= hurt.provider.books.input_tokens


@pytest.mark.parametrize("timeout", [0.001, 0.005])
def test_a_deadline_that_nobody_can_keep(hurt: Hurt, timeout: float) -> None:
    document = hurt.uploaded()
    assert hurt.call(SUMMARIZE, {"document": document}, timeout_s=timeout).code == "DEADLINE_EXCEEDED"
    assert hurt.call(SUMMARIZE, {"document": document}).code == "OK"


def test_uploads_go_on_working(hurt: Hurt) -> None:
    assert hurt.edge.json(UPLOAD, {}, hurt.key, body=hurt.new_document()[1]).http == 200
