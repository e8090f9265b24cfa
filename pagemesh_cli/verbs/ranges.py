"""Ranges of pages, as people type them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer

from pagemesh_cli.failures import ExitCode, Failure

_RANGE = re.compile(r"^(\d{1,9})?(-)?(\d{1,9})?$")
MAX_RANGES = 50
"""That one command asks for, each by a call of its own."""
PagesOption = Annotated[
    str, typer.Option("--pages", metavar="RANGE", help="Only these pages, such as 3, 1-5, 7- or -4; all otherwise.")
]
LAST = 2**31 - 1
"""Stands for the last page of the document, wherever that is."""


@dataclass(frozen=True, order=True)
class PageRange:
    """Pages from 1, both included; `last` is LAST where the range is open."""

    first: int
    last: int

    def __str__(self) -> str:
        if self.last == LAST:
            return f"{self.first}-"
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def page_ranges(text: str) -> list[PageRange]:
    """`3-7,12`: each page once, in order, in as few ranges as that takes. Raises Failure where `text` is none."""
    merged = _merged(_range(part.strip(), text) for part in text.split(","))
    if len(merged) > MAX_RANGES:
        raise _no_range(text, f"At most {MAX_RANGES} ranges at a time.")
    return merged


def one_range(text: str) -> tuple[int, int]:
    """First and last page of `3-7`, 0 for the open end of a range; both 0 of an empty text. Raises Failure where `text`
    is none, or is several."""
    if not text:
        return 0, 0
    first, *others = page_ranges(text)
    if others:
        raise _no_range(text, "One range at a time: try 3, 1-5, 7- or -4.")
    return first.first, 0 if first.last == LAST else first.last


def told(numbers: list[int]) -> str:
    """The pages as such a list: `3-7, 12`."""
    return ", ".join(map(str, _merged(PageRange(number, number) for number in numbers)))


def _merged(ranges: Iterable[PageRange]) -> list[PageRange]:
    merged: list[PageRange] = []
    for found in sorted(ranges):
        if merged and found.first <= merged[-1].last + 1:
            merged[-1] = PageRange(merged[-1].first, max(merged[-1].last, found.last))
        else:
            merged.append(found)
    return merged


def _range(part: str, text: str) -> PageRange:
    match = _RANGE.match(part)
    if match is None or (match[1] is None and match[2] is None):
        raise _no_range(text, "Try 3, 1-5, 7-, -4 or 3-7,12.")
    first = int(match[1]) if match[1] else 1
    last = (int(match[3]) if match[3] else LAST) if match[2] else first
    if first < 1 or last < first:
        raise _no_range(text, "Pages count from 1, upwards.")
    return PageRange(first, last)


def _no_range(text: str, advice: str) -> Failure:
    return Failure(f"{text!r} is no range of pages.", ExitCode.USAGE, "BAD_PAGES", advice=advice)
