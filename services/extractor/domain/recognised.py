"""What is read in the picture of a page. Everything is in pixels of that picture, x to the right, y downwards."""

from dataclasses import dataclass

Point = tuple[float, float]
Corners = tuple[Point, Point, Point, Point]


@dataclass(frozen=True, slots=True)
class LineWord:
    """A word without white space, and from where to where it reaches in its line, as parts of the line's length."""

    text: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class TextLine:
    """A run of text. `corners` go around it clockwise as a reader of it sees it: the first is where its top edge
    begins, the second where that ends. `confidence` goes from 0 to 1."""

    words: tuple[LineWord, ...]
    corners: Corners
    confidence: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in a picture, in no particular order; not complete where there was no time for all of it."""

    lines: tuple[TextLine, ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle along the edges of the picture."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class PlacedWord:
    """A word and where it stands."""

    text: str
    box: Box


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A paragraph: lines of words in reading order. `heading` is 1 or 2 where it stands out by its size, or else 0."""

    lines: tuple[tuple[PlacedWord, ...], ...]
    heading: int = 0
