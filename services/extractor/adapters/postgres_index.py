"""The search index in Postgres."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True)
class IndexablePage:
    """The text of one page."""

    tenant: str
    document_id: str
    number: int
    text: str


async def index_pages(connection: psycopg.AsyncConnection[tuple[Any, ...]], pages: Sequence[IndexablePage]) -> None:
    """Writes pages to the index, in the transaction that stores them. A page that is there already is replaced."""
