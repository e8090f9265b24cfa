"""Draws invoice.pdf: `python pagemesh_cli/demo/make_invoice.py`. The same code gives the same bytes.

A made invoice for the examples of docs/fields.md; nobody in it exists. It needs PyMuPDF; the result is committed.
"""

from pathlib import Path

import pymupdf

_HEAD = ("Description", "Qty", "Unit price", "Amount")
_LINES = (
    ("Acacia honey, 500 g", "24", "7.50", "180.00"),
    ("Beeswax candles", "10", "12.90", "129.00"),
    ("Delivery", "1", "18.00", "18.00"),
)
_FACTS = (
    ("Invoice number:", "INV-2026-0042"),
    ("Invoice date:", "3 March 2026"),
    ("Due date:", "02.04.2026"),
    ("Currency:", "EUR"),
)
_SUMS = (("Subtotal", "327.00"), ("VAT 19 %", "62.13"), ("Total due", "389.13"))
_COLUMNS = (72.0, 300.0, 370.0, 460.0)


def draw() -> pymupdf.Document:
    """One page."""
    document = pymupdf.open()
    page = document.new_page(width=595, height=842)

    def put(x: float, y: float, text: str, font: str = "helv", size: float = 11.0) -> None:
        page.insert_text((x, y), text, fontname=font, fontsize=size)

    put(72, 90, "Linden Apiary Ltd", "hebo", 18)
    put(72, 108, "4 Meadow Lane, Littlefield")
    put(72, 150, "Bill to:", "hebo")
    put(130, 150, "The Corner Shop")
    for row, (label, value) in enumerate(_FACTS):
        put(330, 150 + 18 * row, label, "hebo")
        put(430, 150 + 18 * row, value)
    for x, label in zip(_COLUMNS, _HEAD, strict=True):
        put(x, 270, label, "hebo")
    for row, line in enumerate(_LINES):
        for x, cell in zip(_COLUMNS, line, strict=True):
            put(x, 292 + 20 * row, cell)
    for row, (label, value) in enumerate(_SUMS):
        put(330, 380 + 20 * row, label, "hebo")
        put(460, 380 + 20 * row, value)
    return document


if __name__ == "__main__":
    draw().save(Path(__file__).with_name("invoice.pdf"), garbage=3, deflate=True, no_new_id=True)
