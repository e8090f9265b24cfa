"""Chooses the sentences that say most about a text and least of it twice.

LexRank (Erkan and Radev, 2004, https://arxiv.org/abs/1109.2128): a sentence matters if sentences that matter are like
it, which is the stationary distribution of a random walk over their cosine similarities. Here the walk restarts where
it is biased to: at sentences that stand early, in an abstract or a conclusion, or close to what the reader asks for.
Maximal marginal relevance (Carbonell and Goldstein, 1998) then picks sentences one by one, each for its rank less its
likeness to those already picked.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.summarizer.domain.folding import is_spaceless

MAX_SENTENCES = 1_500
"""Most sentences in one matrix: 1,500² similarities are 9 MB, and comparing that many sentences takes about half a
second of one core. A text of more is thinned first by each sentence's similarity to the whole text, which takes no
matrix."""

_Array = NDArray[np.float32]

_DAMPING = 0.85
_MAX_STEPS = 50
_TOLERANCE = 1e-6
_RANK_SHARE = 0.7
_SAME = 0.9
_MAX_VOCABULARY = 5_000
_STEM_CHARS = 7
_COMMON_SHARE = 0.3
_COMMON_FROM_SENTENCES = 20
_FOCUS_WEIGHT = 20.0
_WORD = re.compile(r"[^\W\d_]{2,}")

_Terms = dict[str, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may be chosen. `weight` is how much its place in the document speaks for it; 1 is neutral."""

    text: str
    weight: float = 1.0


def choose(
    candidates: Sequence[Candidate], *, most: int, focus: str = "", stop_words: frozenset[str] = frozenset()
) -> list[int]:
    """Indexes of at most `most` candidates, ascending. Deterministic: a tie goes to the earlier candidate."""
    if most <= 0 or not candidates:
        return []
    counts = [Counter(_terms(candidate.text, stop_words)) for candidate in candidates]
    rarity = _rarity(counts)
    vectors = [_unit({term: n * rarity[term] for term, n in terms.items() if term in rarity}) for terms in counts]
    wanted = _unit({term: rarity.get(term, 0.0) for term in _terms(focus, stop_words)})
    focused = [1 + _FOCUS_WEIGHT * _dot(wanted, vector) for vector in vectors]
    weights = [candidate.weight * factor for candidate, factor in zip(candidates, focused, strict=True)]
    kept = _thinned(vectors, weights)
    matrix = _matrix([vectors[i] for i in kept])
    likeness = matrix @ matrix.T
    ranks = _ranks(likeness, np.array([weights[i] for i in kept], dtype=np.float32))
    if wanted:
        # The walk spreads the bias; what the reader asks for counts once more, undiluted.
        ranks = _scaled(ranks * np.array([focused[i] for i in kept], dtype=np.float32))
    return sorted(kept[i] for i in _diverse(ranks, likeness, most))


def _terms(text: str, stop_words: frozenset[str]) -> list[str]:
    """Words without their endings, as far as cutting them off does; pairs of characters where there are no words."""
    terms: list[str] = []
    for word in _WORD.findall(text.lower()):
        if is_spaceless(word[0]):
            terms.extend(word[i : i + 2] for i in range(len(word) - 1))
        elif word not in stop_words:
            terms.append(word[:_STEM_CHARS])
    return terms


def _rarity(counts: Sequence[Counter[str]]) -> _Terms:
    """Inverse document frequency over sentences. Words of nearly every sentence say nothing, in any language."""
    frequency = Counter(term for terms in counts for term in terms)
    total = len(counts)
    most = _COMMON_SHARE * total if total >= _COMMON_FROM_SENTENCES else total
    return {term: math.log(1 + total / n) for term, n in frequency.items() if n <= most}


def _unit(terms: _Terms) -> _Terms:
    norm = math.sqrt(sum(value * value for value in terms.values()))
    return {term: value / norm for term, value in terms.items()} if norm else {}


def _dot(a: _Terms, b: _Terms) -> float:
    return sum(value * b[term] for term, value in a.items() if term in b)


def _thinned(vectors: Sequence[_Terms], weights: Sequence[float]) -> list[int]:
    """Indexes of the sentences that go into the matrix, ascending."""
    if len(vectors) <= MAX_SENTENCES:
        return list(range(len(vectors)))
    whole: _Terms = {}
    for vector in vectors:
        for term, value in vector.items():
            whole[term] = whole.get(term, 0.0) + value
    scores = [_dot(vector, whole) * weight for vector, weight in zip(vectors, weights, strict=True)]
    best = sorted(range(len(vectors)), key=lambda i: (-scores[i], i))[:MAX_SENTENCES]
    return sorted(best)


def _matrix(vectors: Sequence[_Terms]) -> _Array:
    """One row a sentence. Terms of a single sentence are like no other's and need no column."""
    frequency = Counter(term for vector in vectors for term in vector)
    shared = sorted((term for term, n in frequency.items() if n > 1), key=lambda term: (-frequency[term], term))
    columns = {term: i for i, term in enumerate(shared[:_MAX_VOCABULARY])}
    matrix = np.zeros((len(vectors), max(len(columns), 1)), dtype=np.float32)
    for row, vector in enumerate(vectors):
        for term, value in vector.items():
            if term in columns:
                matrix[row, columns[term]] = value
    return matrix


def _ranks(likeness: _Array, weights: _Array) -> _Array:
    """The stationary distribution of the biased walk, scaled to a maximum of 1."""
    walk = likeness.copy()
    np.fill_diagonal(walk, 0.0)
    sums = walk.sum(axis=1, keepdims=True)
    # From a sentence that is like no other the walk restarts at once.
    np.divide(walk, sums, out=walk, where=sums > 0)
    restart = weights / weights.sum()
    ranks = restart.copy()
    for _ in range(_MAX_STEPS):
        moved = _DAMPING * (ranks @ walk)
        stepped = moved + (1 - moved.sum()) * restart
        if float(np.abs(stepped - ranks).sum()) < _TOLERANCE:
            ranks = stepped
            break
        ranks = stepped
    return _scaled(ranks)


def _scaled(ranks: _Array) -> _Array:
    scaled: _Array = ranks / max(float(ranks.max()), 1e-12)
    return scaled


def _diverse(ranks: _Array, likeness: _Array, most: int) -> list[int]:
    """Maximal marginal relevance: the next sentence is the one with most rank and least likeness to the chosen."""
    chosen: list[int] = []
    nearest = np.zeros(len(ranks), dtype=np.float32)
    free = np.ones(len(ranks), dtype=bool)
    for _ in range(min(most, len(ranks))):
        if not free.any():
            break
        gain = np.where(free, _RANK_SHARE * ranks - (1 - _RANK_SHARE) * nearest, -np.inf)
        best = int(np.argmax(gain))
        chosen.append(best)
        free[best] = False
        free[likeness[best] > _SAME] = False
        nearest = np.maximum(nearest, likeness[best])
    return chosen
