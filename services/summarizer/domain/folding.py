"""What two spellings of the same words have in common, so that a quote can be compared with a page.

PDF text and quotes of it differ in ligatures, accents drawn as separate marks, curly quotes, dashes, soft hyphens,
hyphens at line ends, case and white space, and in nothing that carries meaning. Folding removes exactly these. What
carries meaning stays: digits, signs before digits, separators between digits, per cent, currency and operators.
"""

import functools
import unicodedata

_COMBINING = range(0x0300, 0x0370)
_DASHES = frozenset("-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d")
_HYPHENS = ("-", "\u2010", "\u2011", "\u00ad")
_CACHED_CHARS = 40
_MAX_GROWTH = 4
_KEPT_CATEGORIES = frozenset({"Sm", "Sc", "Mc", "Mn", "Me", "Co", "Nd", "Nl", "No"})

# First and last code point of scripts that put no space between words.
_SPACELESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, further extensions
)


def is_spaceless(char: str) -> bool:
    """Whether the character belongs to a script that is written without spaces between words."""
    point = ord(char)
    return point >= _SPACELESS[0][0] and any(first <= point <= last for first, last in _SPACELESS)


def ends_hyphenated(word: str) -> bool:
    """Whether the word may go on in the next line."""
    return len(word) > 1 and word.endswith(_HYPHENS) and word[-2].isalpha()


def fold(word: str) -> str:
    """The word without what may differ; empty for mere punctuation. Words are folded one by one: the result never
    depends on the words beside it, so that pages and quotes that break lines elsewhere still agree."""
    if word.isascii() and word.isalnum():
        return word.lower()
    if len(word) <= _CACHED_CHARS:
        return _fold_cached(word)
    return _fold(word)


def fold_borders(word: str) -> frozenset[int]:
    """Offsets into `fold(word)` where the word itself has a border inside, as `(see` or `and/or` have."""
    borders: set[int] = set()
    size = 0
    for piece in _pieces(word):
        if piece:
            size += 1
        else:
            borders.add(size)
    return frozenset(borders)


@functools.lru_cache(maxsize=1 << 16)
def _fold_cached(word: str) -> str:
    return _fold(word)


def _fold(word: str) -> str:
    return "".join(_pieces(word))


def _pieces(word: str) -> list[str]:
    """One entry for each visible character: what stays of it, or nothing. Invisible ones have no entry."""
    chars = [
        c
        for c in _decomposed(word).casefold()
        if ord(c) not in _COMBINING and unicodedata.category(c) not in {"Cf", "Cc"}
    ]
    last = len(chars) - 1
    return [_kept(c, chars[i - 1] if i else "", chars[i + 1] if i < last else "") for i, c in enumerate(chars)]


def _decomposed(word: str) -> str:
    """Its compatible letters, unless they are many times more: some characters stand for a whole phrase."""
    decomposed = unicodedata.normalize("NFKD", word)
    return decomposed if len(decomposed) <= _MAX_GROWTH * len(word) else unicodedata.normalize("NFD", word)


def _kept(char: str, before: str, after: str) -> str:
    if char in _DASHES:
        return "-" if after.isdigit() else ""
    if char == "\u0131":  # the i under an accent that is drawn apart
        return "i"
    if char.isalpha() or char in "%\u2030":
        return char
    category = unicodedata.category(char)
    if category in _KEPT_CATEGORIES:
        return char
    return char if before.isdigit() and after.isdigit() and category.startswith("P") else ""
