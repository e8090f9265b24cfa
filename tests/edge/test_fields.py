"""Fields through the edge, the real services and the offline provider: the made invoice of docs/fields.md, as a PDF and
as a picture of itself."""

import json
from typing import Any

import pymupdf
import pytest

from pagemesh_cli.demo import invoice_path, invoice_schema_path
from tests.edge.conftest import UPLOAD, World

EXTRACT = "pagemesh.summarizer.v1.SummarizerService/ExtractFields"
SCHEMA = json.loads(invoice_schema_path().read_text())


def upload(world: World, data: bytes) -> str:
    uploaded = world.edge.json(UPLOAD, {}, world.keys["admin"], body=data)
    return str(uploaded.messages[0]["document"]["name"])


def picture(kind: str) -> bytes:
    with pymupdf.open(invoice_path()) as document:
        data: bytes = document[0].get_pixmap(dpi=150).tobytes(kind)
    return data


def test_an_invoice_over_grpc_and_over_json(world: World) -> None:
    document = upload(world, invoice_path().read_bytes())
    request = {"document": document, "json_schema": SCHEMA}
    answers = [
        world.edge.grpc(EXTRACT, request, world.keys["fielder"]),
        world.edge.json(EXTRACT, request, world.keys["fielder"]),
    ]
    for outcome in answers:
        assert outcome.code == "OK", outcome
        extraction = outcome.messages[0]["extraction"]
        assert extraction["valid"] is True, extraction
        assert extraction["json"] == {
            "invoice_number": "INV-2026-0042",
            "invoice_date": "2026-03-03",
            "due_date": "2026-04-02",
            "customer": "The Corner Shop",
            "currency": "EUR",
            "lines": [
                {"description": "Acacia honey, 500 g", "quantity": 24, "unit_price": 7.5, "amount": 180},
                {"description": "Beeswax candles", "quantity": 10, "unit_price": 12.9, "amount": 129},
                {"description": "Delivery", "quantity": 1, "unit_price": 18, "amount": 18},
            ],
            "vat": 62.13,
            "total": 389.13,
            "order_number": None,
        }
        found = {field["pointer"]: field for field in extraction["fields"]}
        assert found["/total"]["citation"]["quote"] == "Total due 389.13"
        assert found["/total"]["citation"]["boxes"][0]["x0"] == pytest.approx(330, abs=2)
        assert found["/total"]["confidence"] == 1
        assert all(field["grounded"] for pointer, field in found.items() if pointer != "/order_number")
    assert answers[1].messages[0]["extraction"]["cached"] is True


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_of_an_invoice(world: World, kind: str) -> None:
    """Its words are recognised first: what they are taken for is the recogniser's, and has its own tests."""
    document = upload(world, picture(kind))
    wanted: dict[str, Any] = {
        "type": "object",
        "properties": {name: SCHEMA["properties"][name] for name in ("invoice_number", "total")},
    }
    outcome = world.edge.json(EXTRACT, {"document": document, "json_schema": wanted}, world.keys["admin"])
    extraction = outcome.messages[0]["extraction"]
    assert extraction["json"] == {"invoice_number": "INV-2026-0042", "total": 389.13}
    assert extraction["groundedShare"] == 1
    assert extraction["fields"][0]["citation"]["boxes"]
