"""What of a document no sentence of an answer may rest on: passages that speak to a model, and what only they say."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from services.summarizer.domain.folding import fold
from services.summarizer.domain.orders import MAX_PASSAGES, Line, decoded, passages
from services.summarizer.domain.values import Page

_TAIL_WORDS = 12
"""So many words of a page are looked at together with the next one: an order may be broken over both."""
_LEAST_CHARS = 4
_CODE = re.compile(r"(?=\w*\d)(?=\w*[^\W\d_])\w{6,}|[A-Z]{6,}")
"""A word like `PWNED4711`: what somebody made up to be recognised."""
_WORD = re.compile(r"\w+(?:[-_]\w+)*")


class OrderFinder:
    """Looks at the pages of a document one after the other."""

    def __init__(self) -> None:
        self.count = 0
        self._before: tuple[int, int] = (0, 0)
        self._tail: list[Line] = []

    def look_at(self, page: Page) -> Iterator[tuple[int, int, int]]:
        """Page, first and last word of each passage: on this page, or at the end of the one before."""
        lines = _lines(page)
        tail, (number, words) = self._tail, self._before
        joined = [*tail, *lines]
        seen: set[tuple[int, int]] = set()
        for first, last in passages(joined):
            if self.count == MAX_PASSAGES:
                break
            if (first, last) in seen or (last < len(tail)):
                continue  # found already, with the page before
            seen.add((first, last))
            self.count += 1
            if first < len(tail):
                yield number, words - len(tail) + first, words - 1
            yield page.number, max(0, first - len(tail)), last - len(tail)
        # Blocks of two pages are never the same, though they have the same numbers.
        self._tail = [replace(line, block=-1 - line.block) for line in lines[-_TAIL_WORDS:]]
        self._before = page.number, len(page.words)


class Suspects:
    """Words that stand in such passages and nowhere else in the document, what they say in base64 included."""

    def __init__(self, pages: Iterable[tuple[list[str], list[tuple[int, int]]]]) -> None:
        """`pages` are the words of each page and the passages among them."""
        inside, outside = set[str](), set[str]()
        for words, orders in pages:
            ordered = {number for first, last in orders for number in range(first, last + 1)}
            for number, word in enumerate(words):
                (inside if number in ordered else outside).update(_parts(word))
                if number in ordered and (said := decoded(word)):
                    inside.update(_parts(said))
        self._only_inside = {word for word in inside - outside if len(word) >= _LEAST_CHARS}
        self._outside = outside

    def speak_in(self, text: str) -> bool:
        """Whether the text has one of them, or a made-up word that the rest of the document has not."""
        if any(word in self._only_inside for word in _parts(text)):
            return True
        return any(fold(word) not in self._outside for word in _CODE.findall(text))


def _parts(text: str) -> Iterator[str]:
    for word in _WORD.findall(text):
        yield fold(word)
        if "-" in word:
            yield from (fold(part) for part in word.split("-"))


def _lines(page: Page) -> list[Line]:
    lines: list[Line] = []
    before: tuple[int, int] | None = None
    for word in page.words:
        here = (word.block, word.line)
        lines.append(Line(word.text, here != before, word.block))
        before = here
    return lines
