"""How well texts match a question: BM25 over words that may end otherwise, and the share of the question they hold.

BM25 (Robertson and Zaragoza, 2009, "The Probabilistic Relevance Framework") weighs each word of the question by how few
of the texts have it. A text's coverage is the weight of the words that it has as a share of all words' weight: it says
whether a text has to do with the question at all, which a score alone does not.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.summarizer.domain.folding import is_spaceless

_K1 = 1.2
_B = 0.75
_PHRASE_WEIGHT = 2.0
"""A phrase that was quoted says so much more than one of its words."""
_WORD = re.compile(r"[^\W_]+")
_COMBINING = dict.fromkeys(range(0x0300, 0x0370))
_PREFIX_CHARS = 3
_MAX_WORD_CHARS = 60
# Two words are one word with other endings where the shorter one is all but its last letter the beginning of the longer
# one, and most of it: "sign" and "signed", "terminate" and "termination", and not "state" and "station".
_SHARED = 0.6


@dataclass(frozen=True, slots=True)
class Terms:
    """What is looked for, folded: words, each once, and phrases, which are words one behind the other."""

    words: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.words or self.phrases)


@dataclass(frozen=True, slots=True)
class Match:
    """How well a text matches: `score` is comparable within one call only, `coverage` is 0 to 1."""

    score: float
    coverage: float


def words_of(text: str) -> list[str]:
    """The words, folded: without case and accents. Where a script has no spaces, each pair of its characters."""
    return list(_words(text))


def matches(terms: Terms, texts: Sequence[str]) -> list[Match]:
    """How well each of the texts matches, compared with the others. For threads, where there is much text."""
    finder = _Finder(terms)
    counted = [finder.count(text) for text in texts]
    held = Counter(term for counts, _ in counted for term in counts)
    weights = {term: finder.weight(term) * _rarity(len(texts), held[term]) for term in range(finder.size)}
    total = sum(weights.values())
    mean = sum(length for _, length in counted) / max(len(counted), 1)
    return [_match(counts, length, mean, weights, total) for counts, length in counted]


def _match(counts: Counter[int], length: int, mean: float, weights: dict[int, float], total: float) -> Match:
    if not counts:
        return Match(0.0, 0.0)
    norm = _K1 * (1 - _B + _B * length / mean)
    score = sum(weights[term] * n * (_K1 + 1) / (n + norm) for term, n in counts.items())
    return Match(score, sum(weights[term] for term in counts) / total)


def _rarity(texts: int, held: int) -> float:
    return math.log(1 + (texts - held + 0.5) / (held + 0.5))


class _Finder:
    """Finds terms in texts; terms are numbered, the words first."""

    def __init__(self, terms: Terms) -> None:
        self._words = terms.words
        self._phrases = terms.phrases
        self.size = len(terms.words) + len(terms.phrases)
        self._by_prefix: dict[str, list[int]] = {}
        for number, word in enumerate(terms.words):
            self._by_prefix.setdefault(word[:_PREFIX_CHARS], []).append(number)
        self._known: dict[str, int | None] = {}

    def weight(self, term: int) -> float:
        return 1.0 if term < len(self._words) else _PHRASE_WEIGHT

    def count(self, text: str) -> tuple[Counter[int], int]:
        """How often each term is in the text, and how many words the text has."""
        words = words_of(text)
        counts: Counter[int] = Counter()
        for word, n in Counter(words).items():
            term = self._term(word)
            if term is not None:
                counts[term] += n
        if self._phrases:
            running = f" {' '.join(words)} "
            for number, phrase in enumerate(self._phrases, start=len(self._words)):
                n = running.count(f" {' '.join(phrase)} ")
                if n:
                    counts[number] = n
        return counts, len(words)

    def _term(self, word: str) -> int | None:
        if word not in self._known:
            same = [n for n in self._by_prefix.get(word[:_PREFIX_CHARS], ()) if _is_same(self._words[n], word)]
            # The term that is spelled most alike, where several are.
            self._known[word] = min(same, key=lambda n: abs(len(self._words[n]) - len(word)), default=None)
        return self._known[word]


def _is_same(one: str, other: str) -> bool:
    if one == other:
        return True
    if any(char.isdigit() for char in one + other) or is_spaceless(one[0]):
        return False
    one, other = _singular(one), _singular(other)
    shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    shorter, longer = sorted((len(one), len(other)))
    return shared >= max(_PREFIX_CHARS, shorter - 1) and shared >= _SHARED * longer


def _singular(word: str) -> str:
    return word[:-3] + "y" if word.endswith("ies") and len(word) > 4 else word


def _words(text: str) -> Iterator[str]:
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKD", text.casefold()).translate(_COMBINING)
    for word in _WORD.findall(folded):
        if is_spaceless(word[0]):
            yield from (word[i : i + 2] for i in range(max(1, len(word) - 1)))
        else:
            yield word[:_MAX_WORD_CHARS]
