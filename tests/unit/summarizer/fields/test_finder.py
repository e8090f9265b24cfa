"""Fields without a model: labels, values beside and below them, tables, and silence where nothing stands."""

import json
from typing import Any

import pymupdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemesh_cli.demo import invoice_path, invoice_schema_path
from services.summarizer.domain.field_finder import find
from services.summarizer.domain.fields_prompts import most_fields
from services.summarizer.domain.fields_values import FieldsPrompt, FieldsStage
from services.summarizer.domain.json_schema import check
from services.summarizer.domain.values import Chunk


def found(text: str, **properties: Any) -> dict[str, Any]:
    return found_by(text, {"type": "object", "properties": properties})


def found_by(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    targets = check(schema).targets
    chunk = Chunk(0, text, ((0, len(text), 1),))
    prompt = FieldsPrompt(FieldsStage.EXTRACT, "lexrank", "{}", targets, most_fields(targets), chunk)
    return {field.pointer: field.value for field in find(prompt)}


TEXT = {"type": "string"}
NUMBER = {"type": "number"}
DATE = {"type": "string", "format": "date"}


@pytest.mark.parametrize(
    ("text", "name", "schema", "value"),
    [
        ("Invoice number: RE-17", "invoice_number", TEXT, "RE-17"),
        ("INVOICE NO. RE-17", "invoiceNumber", TEXT, "RE-17"),
        ("Invoice # RE-17", "invoice-number", TEXT, "RE-17"),
        ("Invoice number\nRE-17", "invoice_number", TEXT, "RE-17"),
        ("Invoice number:\nRE-17\nmore", "invoice_number", TEXT, "RE-17"),
        ("Other: x    Invoice number: RE-17   Page 1", "invoice_number", TEXT, "RE-17"),
        ("| Invoice number | RE-17 |", "invoice_number", TEXT, "RE-17"),
        ("Rechnungsnummer: RE-17", "number", {"type": "string", "title": "Rechnungsnummer"}, "RE-17"),
        ("Rechnung Nr. RE-17", "number", {"type": "string", "description": "its number; also Rechnung Nr."}, "RE-17"),
        ("Subtotal 5,00\nTotal due: 1.249,50 EUR", "total", {"type": "number", "title": "Total due"}, "1.249,50 EUR"),
        ("Subtotal 5.00\nTotal 7.00", "total", NUMBER, "7.00"),
        ("VAT 19 %\n62.13", "vat", {"type": "number", "description": "VAT 19 %"}, "62.13"),
        ("Date: Monday, 3 March 2024, Rome", "date", DATE, "Monday, 3 March 2024"),
        ("Kind: credit note 3", "kind", {"enum": ["invoice", "credit note"]}, "credit note"),
        ("Paid: yes", "paid", {"type": "boolean"}, "yes"),
    ],
)
def test_a_value_beside_or_below_its_label(text: str, name: str, schema: dict[str, Any], value: str) -> None:
    assert found(text, **{name: schema}) == {f"/{name}": value}


@pytest.mark.parametrize(
    ("text", "name", "schema"),
    [
        ("", "total", NUMBER),
        ("Nothing of the kind.", "total", NUMBER),
        ("Total of all things that were ever counted", "total", TEXT),
        ("Total: to be agreed", "total", NUMBER),
        ("Total due for 3 things", "total", NUMBER),
        ("Grand total 7.00", "total", NUMBER),
        ("Date: soon", "date", DATE),
        ("Kind: letter", "kind", {"enum": ["invoice"]}),
        ("Total:", "total", NUMBER),
        ("Total", "total", NUMBER),
    ],
)
def test_nothing_is_answered_where_nothing_stands(text: str, name: str, schema: dict[str, Any]) -> None:
    assert found(text, **{name: schema}) == {}


def test_the_next_label_is_no_value() -> None:
    assert found("Name\nCity\nRome", name=TEXT, city=TEXT) == {"/city": "Rome"}


def test_a_longer_label_is_not_a_shorter_one() -> None:
    assert found("Total net: 5\nTotal: 7", total=NUMBER, total_net=NUMBER) == {"/total": "7", "/total_net": "5"}


def test_two_columns_in_one_line() -> None:
    line = "Bill to: The Shop Invoice number: RE-17 Total net: 5"
    wanted = {"bill_to": TEXT, "invoice_number": TEXT, "number": TEXT, "total_net": NUMBER, "net": NUMBER}
    assert found(line, **wanted) == {"/bill_to": "The Shop", "/invoice_number": "RE-17", "/total_net": "5"}


def test_a_list_in_a_line() -> None:
    assert found("Authors: Ada Lovelace, Alan Turing and Grace Hopper", authors={"type": "array", "items": TEXT}) == {
        "/authors/0": "Ada Lovelace",
        "/authors/1": "Alan Turing",
        "/authors/2": "Grace Hopper",
    }


LINES = {
    "type": "array",
    "items": {"type": "object", "properties": {"description": TEXT, "quantity": {"type": "integer"}, "price": NUMBER}},
}


@pytest.mark.parametrize(
    "text",
    [
        "Description\nQty\nPrice\nHoney, 500 g\n2\n7.50\nWax\n1\n3.00\nTotal\n18.00",
        "Description\nUnit\nQty\nPrice\nHoney, 500 g\njar\n2\n7.50\nWax\nbar\n1\n3.00\nTotal\n18.00\n",
        "Description Qty Price\nHoney, 500 g 2 7.50\nWax 1 3.00\nTotal 18.00",
    ],
)
def test_rows_of_a_table(text: str) -> None:
    rows = found(text, lines=LINES)
    assert [rows[f"/lines/{n}/{name}"] for n in (0, 1) for name in ("description", "quantity", "price")] == [
        "Honey, 500 g", "2", "7.50", "Wax", "1", "3.00"
    ]  # fmt: skip
    assert len(rows) == 6, rows


def test_the_made_invoice_of_the_docs() -> None:
    with pymupdf.open(invoice_path()) as document:
        text = document[0].get_text()
    rows = found_by(text, json.loads(invoice_schema_path().read_text()))
    assert rows["/invoice_number"] == "INV-2026-0042"
    assert rows["/total"] == "389.13"
    assert rows["/vat"] == "62.13"
    assert rows["/customer"] == "The Corner Shop"
    assert sum(pointer.endswith("/amount") for pointer in rows) == 3
    assert "/order_number" not in rows


@given(st.text(alphabet=st.sampled_from("Total Qty12.,:|\n\t€-"), max_size=300))
def test_any_text_can_be_looked_through(text: str) -> None:
    found(text, total=NUMBER, qty=TEXT, lines=LINES, tags={"type": "array"})
