"""Lines that were read in a picture, in the order in which people read them."""

import math
import random
from collections.abc import Iterable, Sequence

import pytest

from services.extractor.domain.page_layout import blocks_of
from services.extractor.domain.recognised import Corners, LineWord, PlacedWord, Point, TextBlock, TextLine


def line(text: str, x: float, y: float, *, width: float = 400, height: float = 30, degrees: float = 0) -> TextLine:
    """A line whose words share its width as their letters do; turned clockwise around the picture's origin."""
    words, at = [], 0
    for word in text.split():
        words.append(LineWord(word, at / len(text), (at + len(word)) / len(text)))
        at += len(word) + 1
    corners: Corners = (
        turned((x, y), degrees),
        turned((x + width, y), degrees),
        turned((x + width, y + height), degrees),
        turned((x, y + height), degrees),
    )
    return TextLine(tuple(words), corners, 0.99)


def turned(point: Point, degrees: float) -> Point:
    x, y = point
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return x * cos - y * sin, x * sin + y * cos


def text(words: Iterable[PlacedWord]) -> str:
    return " ".join(word.text for word in words)


def texts(blocks: Sequence[TextBlock]) -> list[list[str]]:
    return [[text(words) for words in block.lines] for block in blocks]


def shuffled(lines: Sequence[TextLine]) -> list[TextLine]:
    mixed = list(lines)
    random.Random(7).shuffle(mixed)
    return mixed


def two_columns(degrees: float = 0) -> list[TextLine]:
    lines = [line("a title that goes over both of the columns", 100, 20, width=1000, height=60, degrees=degrees)]
    for side, x in (("left", 100), ("right", 620)):
        lines += [line(f"{side} {n} of the column", x, 120 + 36 * n, width=480, degrees=degrees) for n in range(8)]
    return lines


def test_nothing_read_is_no_block() -> None:
    assert blocks_of([]) == ()


@pytest.mark.parametrize("degrees", [0, 2, -3, 90, 180, 270, 92])
def test_columns_are_read_one_after_the_other_however_the_page_lies(degrees: float) -> None:
    title, left, right = blocks_of(shuffled(two_columns(degrees)))
    assert texts([title]) == [["a title that goes over both of the columns"]]
    assert texts([left, right]) == [[f"{s} {n} of the column" for n in range(8)] for s in ("left", "right")]


def test_a_line_across_the_columns_ends_what_is_above_it() -> None:
    lower = [line("across the page in the middle of it", 100, 460, width=1000)]
    for side, x in (("left", 100), ("right", 620)):
        lower += [line(f"{side} {n} lower down", x, 540 + 36 * n, width=480) for n in range(8)]
    first = [block[0].split()[:2] for block in texts(blocks_of(shuffled(two_columns() + lower)))]
    order = [["a", "title"], ["left", "0"], ["right", "0"], ["across", "the"], ["left", "0"], ["right", "0"]]
    assert first == order


def test_a_form_is_read_row_by_row() -> None:
    lines = []
    for n, (label, value) in enumerate([("Name", "Ada Lovelace"), ("Born", "1815"), ("City", "London"), ("Day", "1")]):
        lines += [line(label, 100, 100 + 40 * n, width=70), line(value, 500, 103 + 40 * n, width=180)]
    assert texts(blocks_of(shuffled(lines))) == [["Name Ada Lovelace", "Born 1815", "City London", "Day 1"]]


def test_paragraphs_are_told_by_the_space_between_them() -> None:
    lines = [line(f"row {n}", 100, y) for n, y in enumerate([100, 138, 176, 260, 298, 336])]
    assert texts(blocks_of(lines)) == [["row 0", "row 1", "row 2"], ["row 3", "row 4", "row 5"]]


def test_what_is_set_large_is_a_heading() -> None:
    lines = [line("Chapter", 100, 20, height=64), line("Section", 100, 120, height=44)]
    lines += [line(f"a line of prose, number {n}", 100, 200 + 38 * n) for n in range(6)]
    assert [block.heading for block in blocks_of(lines)] == [1, 2, 0]


def test_words_stand_where_their_part_of_the_line_is() -> None:
    (block,) = blocks_of([line("ab cdef", 100, 50, width=700, height=30)])
    ab, cdef = block.lines[0]
    assert (ab.box.x0, ab.box.y0, ab.box.x1, ab.box.y1) == pytest.approx((100, 50, 300, 80))
    assert (cdef.box.x0, cdef.box.x1) == pytest.approx((400, 800))


def test_words_of_a_page_on_its_side_stand_below_each_other() -> None:
    (block,) = blocks_of([line("ab cdef", 100, -80, width=700, height=30, degrees=90)])
    ab, cdef = block.lines[0]
    assert (ab.box.x0, ab.box.y0, ab.box.x1, ab.box.y1) == pytest.approx((50, 100, 80, 300))
    assert (cdef.box.y0, cdef.box.y1) == pytest.approx((400, 800))


def test_what_runs_another_way_comes_last() -> None:
    stamp = line("stamp along the edge", 500, -40, width=300, degrees=90)
    lines = [stamp, *(line(f"row {n}", 100, 100 + 38 * n) for n in range(4))]
    assert texts(blocks_of(lines)) == [[f"row {n}" for n in range(4)], ["stamp along the edge"]]


def test_noise_is_put_in_some_order_and_nothing_is_lost() -> None:
    chance = random.Random(11)
    lines = [
        line(str(n), chance.uniform(0, 4000), chance.uniform(0, 4000), width=chance.uniform(1, 900), height=9)
        for n in range(2000)
    ]
    found = sorted(int(word.text) for block in blocks_of(lines) for row in block.lines for word in row)
    assert found == list(range(2000))


def test_a_line_without_any_size_is_kept() -> None:
    point = (5.0, 5.0)
    dot = TextLine((LineWord("dot", 0, 1),), (point, point, point, point), 0.9)
    assert texts(blocks_of([dot, dot])) == [["dot dot"]]
