"""P1, a document data extractor: its user's program sends a PDF, a JPEG or a PNG with a JSON Schema, or the name of a
stored one, and gets validated fields, each with the box where it stands."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from pagemesh_cli.demo import invoice_path, invoice_schema_path
from tests.scenarios.conftest import Caller, picture

pytestmark = pytest.mark.timeout(400)  # the stack may have to start first, on a machine that is busy

SCHEMA = json.loads(invoice_schema_path().read_text())
FEW: dict[str, Any] = {
    "type": "object",
    "properties": {name: SCHEMA["properties"][name] for name in ("invoice_number", "total")},
    "required": ["invoice_number", "total"],
}
FILES = {
    "application/pdf": lambda: invoice_path().read_bytes(),
    "image/jpeg": lambda: picture("jpeg"),
    "image/png": lambda: picture("png"),
}


@pytest.fixture(scope="module")
def program(new_tenant: Callable[[str], tuple[str, Caller]]) -> Caller:
    return new_tenant("p1")[1]


@pytest.fixture(scope="module")
def stored(program: Caller) -> str:
    """The name of a schema that is kept."""
    schema = program.post("/v1/schemas", {"schemaId": "invoice", "jsonSchema": FEW})["schema"]
    assert schema["name"].startswith("schemas/invoice")
    return "schemas/invoice"


@pytest.mark.parametrize("media_type", list(FILES))
def test_fields_of_a_file(program: Caller, stored: str, media_type: str) -> None:
    uploaded = program.http("POST", "/v1/documents:upload?displayName=invoice", FILES[media_type](), media_type)
    assert uploaded.code == "OK", uploaded
    document = uploaded.messages[0]["document"]
    assert document["mediaType"] == media_type
    for wanted in ({"jsonSchema": FEW}, {"schema": stored}):
        extraction = program.post(f"/v1/{document['name']}:extractFields", wanted)["extraction"]
        assert extraction["valid"] is True
        assert extraction["json"] == {"invoice_number": "INV-2026-0042", "total": 389.13}
        found: dict[str, Any] = {field["pointer"]: field for field in extraction["fields"]}
        assert set(found) == {"/invoice_number", "/total"}
        for field in found.values():
            (box, *_) = field["citation"]["boxes"]
            assert 0 < box["x0"] < box["x1"]
            assert 0 < box["y0"] < box["y1"]
            assert field["grounded"] is True


def test_what_does_not_satisfy_the_schema_is_told(program: Caller) -> None:
    uploaded = program.http("POST", "/v1/documents:upload", invoice_path().read_bytes(), "application/pdf")
    strict = {**FEW, "properties": {**FEW["properties"], "iban": {"type": "string"}}, "required": ["iban"]}
    strict["properties"]["total"] = {"type": "number", "title": "Total due", "maximum": 1}
    name = uploaded.messages[0]["document"]["name"]
    extraction = program.post(f"/v1/{name}:extractFields", {"jsonSchema": strict})["extraction"]
    assert extraction["valid"] is False
    assert [violation["pointer"] for violation in extraction["violations"]] == ["/total"]
    assert extraction["missingRequired"] == ["/iban"]
    misspelt = program.http("POST", f"/v1/{name}:extractFields", {"jsonSchma": strict})
    assert (misspelt.http, misspelt.reason, misspelt.fields) == (400, "UNKNOWN_FIELD", ["jsonSchma"])
