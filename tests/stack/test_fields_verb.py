"""`pagemesh fields` and `pagemesh schemas` on a real stack."""

import json
import uuid
from pathlib import Path

import pytest

from pagemesh_cli.demo import invoice_path, invoice_schema_path
from tests.conftest import RunningStack
from tests.stack.running import Command

SCHEMA = str(invoice_schema_path())


@pytest.fixture(scope="module")
def pagemesh(stack: RunningStack) -> Command:
    return Command.on(stack.data.root)


@pytest.fixture(scope="module")
def document(pagemesh: Command) -> str:
    return pagemesh("upload", str(invoice_path())).out.strip()


def test_the_example_of_the_docs(pagemesh: Command) -> None:
    page = (Path(__file__).parents[2] / "docs" / "fields.md").read_text()
    (example,) = [line for line in page.splitlines() if line.startswith("pagemesh fields ")]
    words = example.split()[1:]
    root = Path(__file__).parents[2]
    answer = pagemesh(*(str(root / word) if word.startswith("pagemesh_cli/") else word for word in words))
    assert answer.code == 0, answer.err
    assert '/invoice_number: "INV-2026-0042"  (confidence 1.00)' in answer.out
    assert "/lines/2/amount: 18" in answer.out
    assert "\u201cTotal due 389.13\u201d" in answer.out
    assert "/order_number: not found" in answer.out
    assert "offline/lexrank" in answer.out
    assert "cost 0.0" in answer.out


def test_json_and_a_schema_that_is_not_satisfied(pagemesh: Command, document: str, tmp_path: Path) -> None:
    answer = pagemesh("fields", document, "--schema", SCHEMA, "--json").json
    assert answer["extraction"]["json"]["total"] == 389.13
    assert answer["extraction"]["fields"][0]["citation"]["boxes"]
    strict = tmp_path / "strict.json"
    total = {"type": "number", "title": "Total due", "maximum": 1}
    strict.write_text(json.dumps({"type": "object", "properties": {"total": total, "iban": {}}, "required": ["iban"]}))
    failed = pagemesh("fields", document, "--schema", str(strict))
    assert failed.code == 8
    assert "! /total must keep to maximum 1" in failed.out
    assert "! /iban is required and was not found" in failed.out


def test_some_of_the_pages(pagemesh: Command, document: str) -> None:
    found = pagemesh("fields", document, "--schema", SCHEMA, "--pages", "1", "--json").json["extraction"]
    assert found["json"]["total"] == 389.13
    for pages, reason in (("2-", "PAGE_OUT_OF_RANGE"), ("2-1", "BAD_PAGES"), ("1,3", "BAD_PAGES")):
        assert pagemesh("fields", document, "--schema", SCHEMA, "--pages", pages, "--json").error["reason"] == reason


def test_an_estimate_of_fields(pagemesh: Command, document: str) -> None:
    out = pagemesh("estimate", document, "--schema", SCHEMA, "--pages", "1").out
    for part in ("price    0.", "offline/lexrank", "pages    1 in 1 part, "):
        assert part in out
    both = pagemesh("estimate", document, "--schema", SCHEMA, "--ask", "How much?", "--json")
    pages = pagemesh("estimate", document, "--pages", "1", "--json")
    assert [each.error["reason"] for each in (both, pages)] == ["BAD_ARGUMENTS"] * 2
    asked = pagemesh("estimate", document, document, "--ask", "What is the total?", "--json").json["estimate"]
    assert (asked["document"], asked["chunkCount"]) == (document, 1)


def test_a_bound_is_kept_to(pagemesh: Command, document: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"type": "object", "properties": {f"p{uuid.uuid4().hex}": {"type": "string"}}}))
    refused = pagemesh("fields", document, "--schema", str(path), "--max-cost", "0", "--json")
    assert refused.error["reason"] == "MAX_COST_EXCEEDED"
    found = pagemesh("fields", document, "--schema", str(path), "--max-cost", "1")
    assert found.code == 0, found.err
    assert found.out.startswith("/p")
    assert found.out.splitlines()[0].endswith(": not found")


def test_schemas_are_kept_listed_used_and_deleted(pagemesh: Command, document: str, tmp_path: Path) -> None:
    schema_id = f"s{uuid.uuid4().hex}"
    assert pagemesh("schemas", "create", schema_id, SCHEMA).out == f"schemas/{schema_id}@1\n"
    assert pagemesh("schemas", "create", schema_id, SCHEMA, "--json").json["created"] is False
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"type": "object", "properties": {"currency": {"type": "string"}}}))
    assert pagemesh("schemas", "create", schema_id, str(other)).out == f"schemas/{schema_id}@2\n"
    assert f"schemas/{schema_id}@2" in pagemesh("schemas", "list").out
    versions = pagemesh("schemas", "list", schema_id, "--json").json["schemas"]
    assert [version["version"] for version in versions] == [2, 1]
    assert json.loads(pagemesh("schemas", "show", schema_id).out) == json.loads(other.read_text())
    assert json.loads(pagemesh("schemas", "show", f"{schema_id}@1").out) == json.loads(Path(SCHEMA).read_text())
    used = pagemesh("fields", document, "--schema", f"schemas/{schema_id}", "--json").json["extraction"]
    assert (used["schema"], used["json"]) == (f"schemas/{schema_id}@2", {"currency": "EUR"})
    assert pagemesh("schemas", "delete", schema_id, "--yes").out == "2 versions deleted\n"
    gone = pagemesh("schemas", "show", schema_id, "--json")
    assert (gone.code, gone.error["reason"]) == (5, "SCHEMA_NOT_FOUND")


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "SCHEMA_INVALID"), ("[]", "SCHEMA_INVALID"), ('{"type": NaN}', "SCHEMA_INVALID"), ("{}", "SCHEMA_INVALID")],
)
def test_a_file_that_holds_no_schema(
    pagemesh: Command, document: str, tmp_path: Path, content: str, reason: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    failed = pagemesh("fields", document, "--schema", str(path), "--json")
    assert (failed.code, failed.error["reason"]) == (2, reason)


def test_a_file_that_is_not_there(pagemesh: Command, document: str) -> None:
    failed = pagemesh("fields", document, "--schema", "nowhere.json", "--json")
    assert (failed.code, failed.error["reason"]) == (2, "UNREADABLE_FILE")
