"""Where on a page the words are that a search was for."""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.extractor.domain.search_query import Term

MAX_SNIPPETS = 3
MAX_BOXES = 500
_MAX_HIGHLIGHTS = 200
_MAX_TOKENS = 50_000
_MAX_TOKEN_LETTERS = 1000
_MAX_STEPS = 200_000
"""So many words of a page are compared for one term, so that a phrase of nothing but one word costs milliseconds."""
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


def words_of(page: PageText, terms: Sequence[Term]) -> Collection[str]:
    """Every word whose lexemes `marks` needs, each once: those of the terms, then the page's in their order."""
    words = (word for term in terms for word in term.text.split())
    return dict.fromkeys((*words, *page.words[:_MAX_TOKENS], *_tokens(page.text)))


def marks(page: PageText, terms: Sequence[Term], lexemes: Lexemes) -> Marks:
    """Finds the terms in the page. Takes milliseconds for a page of thousands of words: for threads."""
    words = page.words[:_MAX_TOKENS]
    found = _matching(words, terms, lexemes)
    boxes = [page.boxes[at] for at in sorted(found)[:MAX_BOXES]]
    return Marks(_snippets(_tokens(page.text), terms, lexemes), boxes)


def _tokens(text: str) -> Sequence[str]:
    return [word[:_MAX_TOKEN_LETTERS] for word in text.split(None, _MAX_TOKENS)[:_MAX_TOKENS]]


def _matching(words: Sequence[str], terms: Sequence[Term], lexemes: Lexemes) -> dict[int, set[int]]:
    """By place among the words: the terms that match there. Of what a page has without end, the beginning."""
    places = [at for at, word in enumerate(words) if any(letter.isalnum() for letter in word)]
    vocabulary = _Vocabulary({words[at] for at in places}, lexemes)
    found: dict[int, set[int]] = {}
    for number, term in enumerate(terms):
        fits = [vocabulary.fitting(part, prefix=term.prefix) for part in term.text.split()]
        while fits and fits[-1] is None:
            fits.pop()
        while fits and fits[0] is None:
            fits.pop(0)
        steps = _MAX_STEPS if fits and all(fit is None or fit for fit in fits) else 0
        for begin in range(len(places) - len(fits) + 1):
            if steps <= 0:
                break
            length = _length(fits, words, places, begin)
            steps -= length + 1
            if length == len(fits):
                steps -= length
                for k, fit in enumerate(fits):
                    if fit is not None:
                        found.setdefault(places[begin + k], set()).add(number)
    return found


def _length(fits: Sequence[Collection[str] | None], words: Sequence[str], places: Sequence[int], begin: int) -> int:
    """How many of a term's words stand there, one behind the other."""
    for k, fit in enumerate(fits):
        if fit is not None and words[places[begin + k]] not in fit:
            return k
    return len(fits)


class _Vocabulary:
    """A page's words by what the index keeps of them, so that a query of many words costs little more than one."""

    def __init__(self, distinct: Collection[str], lexemes: Lexemes) -> None:
        self._lexemes = lexemes
        self._by_lexeme: defaultdict[str, set[str]] = defaultdict(set)
        for word in distinct:
            for kept in lexemes.get(word, ()):
                self._by_lexeme[kept].add(word)
        self._sorted = sorted(self._by_lexeme)
        self._known: dict[tuple[str, bool], Collection[str] | None] = {}

    def fitting(self, part: str, *, prefix: bool) -> Collection[str] | None:
        """The page's words that match one word of a term; None where any does, because the index leaves it out."""
        if (part, prefix) not in self._known:
            self._known[part, prefix] = self._fitting(part, prefix=prefix)
        return self._known[part, prefix]

    def _fitting(self, part: str, *, prefix: bool) -> Collection[str] | None:
        wanted = self._lexemes.get(part, ())
        if prefix:
            return {word for beginning in {part.lower(), *wanted} for word in self._beginning_with(beginning)}
        if not wanted:
            return None
        return set[str].intersection(*(self._by_lexeme.get(kept, set()) for kept in wanted))

    def _beginning_with(self, beginning: str) -> Iterator[str]:
        for at in range(bisect_left(self._sorted, beginning), len(self._sorted)):
            if not self._sorted[at].startswith(beginning):
                return
            yield from self._by_lexeme[self._sorted[at]]


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
