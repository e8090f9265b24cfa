"""Where on a page the words are that a search was for."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from services.extractor.domain.search_query import Term

MAX_SNIPPETS = 3
MAX_BOXES = 500
_MAX_HIGHLIGHTS = 200
_MAX_TOKENS = 50_000
_MAX_TOKEN_LETTERS = 1000
_BEFORE = 80
_SNIPPET_LETTERS = 280
_EDGES = re.compile(r"^\W*(.*?)\W*$", re.DOTALL)

Lexemes = Mapping[str, Collection[str]]
"""By word: what the index keeps of it. Nothing of a word that it leaves out."""


@dataclass(frozen=True, slots=True)
class Box:
    """In points, from the top left corner of the page as it is shown."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class PageText:
    """A page's text, and its words with their places in the same order."""

    text: str = ""
    words: Sequence[str] = ()
    boxes: Sequence[Box] = ()
    has_text: bool = True


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of text; `highlights` are ranges of characters in it, without overlaps, in order."""

    text: str
    highlights: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Marks:
    """What a page says where it matches, and where that stands."""

    snippets: Sequence[Snippet] = ()
    boxes: Sequence[Box] = ()


def words_of(page: PageText, terms: Sequence[Term]) -> set[str]:
    """Every word whose lexemes `marks` needs."""
    return {*_tokens(page.text), *page.words[:_MAX_TOKENS], *(word for term in terms for word in term.text.split())}


def marks(page: PageText, terms: Sequence[Term], lexemes: Lexemes) -> Marks:
    """Finds the terms in the page. Takes milliseconds for a page of thousands of words: for threads."""
    words = page.words[:_MAX_TOKENS]
    found = _matching(words, terms, lexemes)
    boxes = [page.boxes[at] for at in sorted(found)[:MAX_BOXES]]
    return Marks(_snippets(_tokens(page.text), terms, lexemes), boxes)


def _tokens(text: str) -> Sequence[str]:
    return [word[:_MAX_TOKEN_LETTERS] for word in text.split(None, _MAX_TOKENS)[:_MAX_TOKENS]]


def _matching(words: Sequence[str], terms: Sequence[Term], lexemes: Lexemes) -> dict[int, set[int]]:
    """By place among the words: the terms that match there."""
    places = [at for at, word in enumerate(words) if any(letter.isalnum() for letter in word)]
    distinct = {words[at] for at in places}
    found: dict[int, set[int]] = {}
    for number, term in enumerate(terms):
        fits = [_fitting(part, term.prefix, distinct, lexemes) for part in term.text.split()]
        while fits and fits[-1] is None:
            fits.pop()
        while fits and fits[0] is None:
            fits.pop(0)
        for begin in range(len(places) - len(fits) + 1) if fits else ():
            if all(fit is None or words[places[begin + k]] in fit for k, fit in enumerate(fits)):
                for k, fit in enumerate(fits):
                    if fit is not None:
                        found.setdefault(places[begin + k], set()).add(number)
    return found


def _fitting(part: str, prefix: bool, distinct: Collection[str], lexemes: Lexemes) -> Collection[str] | None:
    """The page's words that match one word of a term; None where any does, because the index leaves it out."""
    wanted = set(lexemes.get(part, ()))
    if prefix:
        beginnings = (part.lower(), *wanted)
        return {word for word in distinct if any(kept.startswith(beginnings) for kept in lexemes.get(word, ()))}
    if not wanted:
        return None
    return {word for word in distinct if wanted <= set(lexemes.get(word, ()))}


def _snippets(tokens: Sequence[str], terms: Sequence[Term], lexemes: Lexemes) -> Sequence[Snippet]:
    """The pieces that have most of the terms in them, in the page's order; the page's beginning where none is found."""
    found = _matching(tokens, terms, lexemes)
    offsets, text = [], " ".join(tokens)
    at = 0
    for token in tokens:
        offsets.append(at)
        at += len(token) + 1
    ranges = []
    for place in sorted(found):
        for begin, end in _parts(tokens[place], [terms[number] for number in found[place]]):
            ranges.append((offsets[place] + begin, offsets[place] + end, found[place]))
    windows: list[tuple[int, int, int, int]] = []
    covered = -1
    for index, (begin, _, _) in enumerate(ranges):
        if begin < covered:
            continue
        inside = [each for each in ranges[index : index + _MAX_HIGHLIGHTS] if each[1] <= begin + _SNIPPET_LETTERS]
        different = len(set().union(*(each[2] for each in inside))) if inside else 0
        windows.append((-different, -len(inside), begin, index))
        covered = begin + _SNIPPET_LETTERS + _BEFORE
    best = sorted(sorted(windows)[:MAX_SNIPPETS], key=lambda window: window[2])
    if not best:
        return [Snippet(text[:_SNIPPET_LETTERS], ())] if text else ()
    return [
        _cut(text, begin, [(a, b) for a, b, _ in ranges[index : index + _MAX_HIGHLIGHTS]]) for *_, begin, index in best
    ]


def _parts(token: str, terms: Sequence[Term]) -> Sequence[tuple[int, int]]:
    """What of a matching word is marked: all but the signs around it; where words are not parted, the term itself."""
    lower = token.casefold()
    if len(lower) == len(token) and any(letter > "\u2e7f" for letter in token):
        for term in terms:
            at = lower.find(term.text.casefold())
            if at >= 0:
                return [(at, at + len(term.text))]
    match = _EDGES.match(token)
    assert match is not None
    return [match.span(1)]


def _cut(text: str, first: int, ranges: Sequence[tuple[int, int]]) -> Snippet:
    begin = max(first - _BEFORE, 0)
    if begin:
        space = text.find(" ", begin, first)
        begin = space + 1 if space >= 0 else begin
    end = min(first + _SNIPPET_LETTERS, len(text))
    if end < len(text):
        space = text.rfind(" ", first, end)
        end = space if space > ranges[0][1] else max(end, min(ranges[0][1], first + _MAX_TOKEN_LETTERS))
    inside = [(a - begin, b - begin) for a, b in ranges if a >= begin and b <= end]
    return Snippet(text[begin:end], inside)
