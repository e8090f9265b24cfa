"""`pagemesh demo`: the whole way of one document, from file to bill, on a stack of its own."""

from pathlib import Path


def document_path() -> Path:
    """The document that comes along: a few pages of Pagemesh's own prose, made by make_document.py."""
    return Path(__file__).with_name("document.pdf")
