"""A misspelt field costs nothing: no privacy, no money, no document."""

import json

import pytest

from tests.edge.calling import Outcome
from tests.edge.conftest import World

USAGE = "pagemesh.ledger.v1.LedgerService/QueryUsage"


def records(world: World, key: str) -> int:
    return int(world.edge.grpc(USAGE, {"page_size": 1}, key).messages[0].get("totalRecords", 0))


def post(world: World, path: str, body: object, key: str, verb: str = "POST") -> Outcome:
    headers = {"authorization": f"Bearer {world.keys[key]}", "content-type": "application/json"}
    return world.edge.http(verb, path, json.dumps(body).encode(), headers)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"maxCots": {"currency": "USD", "micros": 1}}, "maxCots"),
        ({"options": {"anonymize": ["PERSONAL_DATA_KIND_ALL"]}}, "options.anonymize"),
        ({"anonymise": ["PERSONAL_DATA_KIND_ALL"]}, "anonymise"),
    ],
)
def test_a_misspelt_bound_is_refused_before_anything_is_used(world: World, body: object, field: str) -> None:
    before = records(world, world.keys["admin"])
    for verb in ("summarize", "streamSummarize"):
        outcome = post(world, f"/v1/{world.names['GOOD']}:{verb}", body, "admin")
        assert (outcome.code, outcome.http, outcome.reason) == ("INVALID_ARGUMENT", 400, "UNKNOWN_FIELD"), outcome
        assert outcome.fields == [field]
        assert outcome.headers["x-request-id"]
    assert records(world, world.keys["admin"]) == before


def test_what_is_free_by_contract_may_have_any_names(world: World) -> None:
    schema = {"type": "object", "properties": {"maxCots": {"type": "string"}, "max_cost": {"type": "string"}}}
    made = post(world, "/v1/schemas", {"schemaId": "free-names", "jsonSchema": schema}, "admin")
    assert made.code == "OK", made
    assert set(made.messages[0]["schema"]["jsonSchema"]["properties"]) == {"maxCots", "max_cost"}
    refused = post(world, "/v1/schemas", {"schemaId": "free-names", "jsonSchema": schema, "schema": 1}, "admin")
    assert (refused.reason, refused.fields) == ("UNKNOWN_FIELD", ["schema"])


@pytest.mark.parametrize(("key", "code"), [("none", "UNAUTHENTICATED"), ("nonsense", "UNAUTHENTICATED")])
def test_who_is_not_let_in_learns_nothing_of_names(world: World, key: str, code: str) -> None:
    outcome = post(world, f"/v1/{world.names['GOOD']}:summarize", {"maxCots": 1}, key)
    assert outcome.code == code
    assert outcome.fields == []
