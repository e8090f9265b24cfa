"""`pagemesh demo`: the whole way of one document, from file to bill, on a stack of its own."""

from pathlib import Path


def document_path() -> Path:
    """The document that comes along: a few pages of Pagemesh's own prose, made by make_document.py."""
    return Path(__file__).with_name("document.pdf")


def invoice_path() -> Path:
    """A made invoice, drawn by make_invoice.py."""
    return Path(__file__).with_name("invoice.pdf")


def invoice_schema_path() -> Path:
    """A JSON Schema of what stands in it."""
    return Path(__file__).with_name("invoice.schema.json")
