"""A part of a document, by its pages."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PageRange:
    """Pages from `first` to `last`, both included and counted from 1; 0 is the open end of each. A `last` past the end
    of the document is its end, a `first` past it is an error of whoever reads it: OutOfRange PAGE_OUT_OF_RANGE."""

    first: int = 0
    last: int = 0


ALL_PAGES = PageRange()
