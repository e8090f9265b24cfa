"""How alike two texts are, and whether what a model said of the one may be said of the other.

Of a text little is kept: a sketch from which its likeness to another one is told (MinHash with one permutation, over
runs of words; Li, Owen and Zhang 2012, empty bins filled by their neighbours), a digest of what must be equal, and of
its answer which words and which quotes of it stood in the text. ADR 39 has the rules and what they were measured by.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from services.summarizer.domain.alignment import tokens_of
from services.summarizer.domain.citations import ELLIPSIS
from services.summarizer.domain.folding import fold
from services.summarizer.domain.language import NEGATIONS
from services.summarizer.domain.values import Answer, Chunk, Claim, Quote

VERSION = "1"
"""Changes whenever sketches, digests or marks would come out otherwise."""

LEAST_ALIKE = 0.9
"""Smallest share of runs of words that both texts must have in common, as their sketches tell it."""
LEAST_WORDS = 100
"""A shorter text is never like another one: a call for it costs next to nothing, and each of its words weighs much."""

_RUN = 3
_BINS = 64
_BIN_BITS = 6
_ROWS = 8
"""Bins of a band: texts of LEAST_ALIKE share one of the eight bands in more than nine cases of ten."""
_HASH_BYTES = 8
_BIN_BYTES = 4


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is kept of a text. `bands` are looked up: two texts with one in common were asked the same question, are the
    same in all that must be equal, and probably much alike. `sketch` has a number for each bin, and last how many words
    there are."""

    bands: tuple[bytes, ...]
    sketch: bytes


@dataclass(frozen=True, slots=True)
class Marks:
    """What an answer has from its text. `words` are digests of those of its words that stand there, 8 bytes each and
    sorted; `stood` has a 1 for each of its quotes that stands there, in order, and a 0 for each other."""

    words: bytes
    stood: bytes


class Text:
    """A text that is compared, as words without what may differ (see folding.py). For threads: a chunk takes some
    20 ms."""

    def __init__(self, chunk: Chunk) -> None:
        self._words = [token.text for token in tokens_of(chunk.text.split())]
        self._digests: frozenset[bytes] | None = None
        self._joined = "".join(self._words)

    def draw(self, question: bytes) -> Drawn | None:
        """The sketch, in bands for one question; None for a text that is too short."""
        if len(self._words) < LEAST_WORDS:
            return None
        bins = _bins(self._words)
        sketch = b"".join(value.to_bytes(_BIN_BYTES, "big") for value in bins)
        counted = len(self._words).to_bytes(_BIN_BYTES, "big")
        equal = hashlib.sha256(b"\n".join([VERSION.encode(), question, _weighty(self._words)])).digest()
        size = _ROWS * _BIN_BYTES
        bands = (
            hashlib.sha256(equal + bytes([start // size]) + sketch[start : start + size]).digest()[:16]
            for start in range(0, len(sketch), size)
        )
        return Drawn(tuple(bands), sketch + counted)

    def marks(self, answer: Answer) -> Marks:
        """What the answer has from this text."""
        own = self._set()
        words = sorted({digest for digest in map(_digest, _said(answer.claims)) if digest in own})
        return Marks(b"".join(words), bytes(self._has(quote) for quote in _quotes(answer.claims)))

    def may_say(self, answer: Answer, marks: Marks) -> bool:
        """Whether what was said of a text with these marks may be said of this one: each of its words and each of its
        quotes that stood there stands here too."""
        own, size = self._set(), _HASH_BYTES
        if any(marks.words[start : start + size] not in own for start in range(0, len(marks.words), size)):
            return False
        quotes = zip(_quotes(answer.claims), marks.stood, strict=True)
        return all(self._has(quote) for quote, stood in quotes if stood)

    def _set(self) -> frozenset[bytes]:
        if self._digests is None:
            self._digests = frozenset(map(_digest, set(self._words)))
        return self._digests

    def _has(self, quote: Quote) -> bool:
        """Whether its parts stand here, to the letter, one after the other."""
        at = 0
        for part in ELLIPSIS.split(quote.text):
            folded = "".join(fold(word) for word in part.split())
            at = self._joined.find(folded, at)
            if at < 0:
                return False
            at += len(folded)
        return True


def likeness(one: bytes, other: bytes) -> float:
    """Share of the bins in which two sketches agree: about that of the runs of words that both texts have. It is never
    more than the share of the longer text that the shorter one could be: what is said again and again counts too."""
    (*bins, words), (*other_bins, other_words) = _cut(one), _cut(other)
    share = sum(a == b for a, b in zip(bins, other_bins, strict=True)) / _BINS
    return min(share, min(words, other_words) / max(words, other_words, 1))


def moved(answer: Answer, by: int) -> Answer:
    """The answer for a text whose pages have numbers higher by so much: where a quote is looked for first."""
    return replace(
        answer,
        claims=tuple(replace(claim, quotes=tuple(_moved(q, by) for q in claim.quotes)) for claim in answer.claims),
    )


def _moved(quote: Quote, by: int) -> Quote:
    return Quote(quote.text, max(0, quote.page + by) if quote.page else 0)


def _bins(words: Sequence[str]) -> list[int]:
    """The least digest in each bin."""
    lowest: list[int | None] = [None] * _BINS
    for run in zip(*(words[start:] for start in range(_RUN)), strict=False):
        digest = int.from_bytes(_digest("\0".join(run)), "big")
        place, value = digest & (_BINS - 1), digest >> 32
        held = lowest[place]
        if held is None or value < held:
            lowest[place] = value
    # An empty bin has what the next one has, changed by how far that is: alike in texts that are alike.
    filled: list[int] = []
    for place in range(_BINS):
        far = next(far for far in range(_BINS) if lowest[(place + far) % _BINS] is not None)
        filled.append(((lowest[(place + far) % _BINS] or 0) + far * 0x9E3779B1) & 0xFFFFFFFF)
    return filled


def _weighty(words: Iterable[str]) -> bytes:
    """A digest of all that makes another statement of a text, in order: what is not letters alone (numbers, amounts,
    codes, signs), and negations."""
    digest = hashlib.sha256()
    for word in words:
        if not word.isalpha() or word in NEGATIONS:
            digest.update(word.encode("utf-8", "surrogatepass") + b"\0")
    return digest.digest()


def _said(claims: Iterable[Claim]) -> set[str]:
    return {folded for claim in claims for word in claim.text.split() if (folded := fold(word))}


def _quotes(claims: Iterable[Claim]) -> list[Quote]:
    return [quote for claim in claims for quote in claim.quotes]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()


def _cut(sketch: bytes) -> list[int]:
    starts = range(0, len(sketch), _BIN_BYTES)
    return [int.from_bytes(sketch[start : start + _BIN_BYTES], "big") for start in starts]
