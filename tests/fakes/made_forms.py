"""Forms that are made up: invoices of several layouts with what a reader finds in them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "invoice_number": {"type": "string"},
        "invoice_date": {"type": "string", "format": "date"},
        "due_date": {"type": "string", "format": "date"},
        "customer": {"type": "string", "title": "Bill to"},
        "order_number": {"type": ["string", "null"]},
        "vat": {"type": "number", "description": "VAT 19 %"},
        "total": {"type": "number", "title": "Total due"},
    },
    "required": ["invoice_number", "total"],
}
"""Single values."""
SCHEMA_OF_LINES: dict[str, Any] = {
    **SCHEMA,
    "properties": {
        **SCHEMA["properties"],
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "description": {"type": "string"},
                    "quantity": {"type": "integer"},
                    "amount": {"type": "number"},
                },
            },
        },
    },
}
"""The same with the rows of a table."""
_LABELS = {
    "invoice_number": ("Invoice number", "Invoice no.", "Our reference"),
    "invoice_date": ("Invoice date", "Date of issue"),
    "due_date": ("Due date", "Payable by"),
    "customer": ("Bill to", "Customer"),
    "order_number": ("Order number", "Your order"),
    "vat": ("VAT 19 %", "VAT"),
    "total": ("Total due", "Total"),
}
_HEADS = (
    ("Description", "Quantity", "Amount"),
    ("Description", "Qty", "Amount"),
    ("Article", "Pieces", "Sum"),
)
"""The last one is worded otherwise than the schema."""
_GOODS = ("Bearings", "Copper wire", "Hinges, brass", "Labels", "Oak boards", "Paint, white", "Screws M6", "Valves")
_NAMES = ("Adler & Sons Ltd", "Brook Mill Works", "Harbour Paper Company", "Nordwind GmbH")
_PROSE = (
    "We thank you for your order and the trust that you have put into our house.",
    "Goods remain our property until they are paid for in full.",
    "Please quote the number above in all letters and transfers.",
    "Complaints are heard within fourteen days after the goods have come in.",
    "Our terms of sale and delivery apply, as they are printed overleaf.",
)


@dataclass(frozen=True)
class Entry:
    """A value, and the line that it stands in. In pointers a star is the number of a row."""

    pointer: str
    value: str
    line: str


@dataclass(frozen=True)
class Form:
    """The texts of its pages, and what they hold."""

    pages: tuple[str, ...]
    entries: tuple[Entry, ...]


def made_form(seed: int, *, rows: int, prose: int) -> Form:
    """A form with a table of so many rows, 25 on a page, and so many sentences around on each."""
    chance = random.Random(seed)
    values = {
        "invoice_number": f"INV-{chance.randint(2000, 2030)}-{chance.randint(1, 9999):04}",
        "invoice_date": f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}",
        "due_date": f"2027-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}",
        "customer": chance.choice(_NAMES),
        "order_number": f"PO-{chance.randint(1, 99999)}",
        "vat": f"{chance.randint(1, 999)}.{chance.randint(0, 99):02}",
        "total": f"{chance.randint(1000, 9999)}.{chance.randint(0, 99):02}",
    }
    entries = [
        Entry(f"/{name}", value, f"{chance.choice(_LABELS[name])}: {value}")
        for name, value in values.items()
        if chance.random() < 0.9
    ]
    lines = [entry.line for entry in entries]
    table, found = _table(chance, rows)
    pages = [[*chance.choices(_PROSE, k=prose), *lines, *table[:26]]]
    pages += [[*chance.choices(_PROSE, k=prose), table[0], *table[at : at + 25]] for at in range(26, len(table), 25)]
    return Form(tuple("\n".join(page) for page in pages), (*entries, *found))


def _table(chance: random.Random, rows: int) -> tuple[list[str], Sequence[Entry]]:
    """Its head and its rows, as parsers give them: a cell in each line, or a row."""
    between, head = chance.choice(("\n", " ")), chance.choice(_HEADS)
    table, entries = [between.join(head)] if rows else [], list[Entry]()
    for number in range(1, rows + 1):
        cells = (
            f"{chance.choice(_GOODS)} {number}",
            str(chance.randint(1, 99)),
            f"{chance.randint(1, 999)}.{chance.randint(0, 99):02}",
        )
        line = between.join(cells)
        table.append(line)
        names = ("description", "quantity", "amount")
        entries += [Entry(f"/lines/*/{name}", cell, line) for name, cell in zip(names, cells, strict=True)]
    return table, entries
