"""Lists of a tenant's things: read part by part, shown as a table."""

from collections.abc import Callable, Sequence
from typing import Annotated, Protocol, TypeVar

import typer
from google.protobuf import timestamp_pb2
from rich.table import Table
from rich.text import Text

from pagemesh_cli.output import Output, one_line

LARGEST_PAGE = 1000

Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")]


class Page(Protocol):
    """What every answer of a list has."""

    next_page_token: str


PageT = TypeVar("PageT", bound=Page)
Item = TypeVar("Item")


def read_list(
    ask: Callable[[int, str], PageT], items: Callable[[PageT], Sequence[Item]], limit: int
) -> tuple[list[Item], bool]:
    """Up to `limit` items, and whether there are more. `ask(page_size, page_token)` answers one part."""
    found: list[Item] = []
    token = ""
    while len(found) < limit:
        page = ask(min(limit - len(found), LARGEST_PAGE), token)
        found.extend(items(page))
        token = page.next_page_token
        if not token:
            break
    return found, bool(token)


def print_list(
    output: Output, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, more: bool, limit: int
) -> None:
    """A table; a note where there is nothing in it, or more than was asked for."""
    if not rows:
        output.note("there are none")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column == columns[0])
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    output.print(table)
    if more:
        output.note(f"there are more; --limit {min(limit * 2, 10_000)} shows them", "dim")


def time_cell(stamp: timestamp_pb2.Timestamp) -> str:
    """UTC to the second; a hyphen where there is none."""
    return stamp.ToDatetime().isoformat(timespec="seconds") + "Z" if stamp.seconds else "-"


def on_off(active: bool) -> str:
    """A switch, in words."""
    return "on" if active else "off"


def named(kind: str, text: str) -> str:
    """`projects/red` for `red` and for itself."""
    return text if text.startswith(f"{kind}/") else f"{kind}/{text}"
