"""Text as Postgres' full text parser should see it, the same for pages and for what is looked for in them."""

import functools
import re
import unicodedata

MAX_INDEXED_CHARACTERS = 256 * 1024
MAX_INDEXED_BYTES = 256 * 1024
"""A vector of Postgres holds 1 MiB. Compound words are in it whole and in parts, 3.5 times their text at worst."""
_LONGEST_RUN = 200

# NUL and lone surrogates are refused by Postgres; \x01 marks the lexemes that no text may spell.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]+")
_UNFIT_LETTERS = frozenset(filter(_UNFIT.match, map(chr, (*range(0x80), *range(0xD800, 0xE000)))))
_FEW_SIGNS = 8
_SOFT_HYPHEN = "\u00ad"
# Some of the parser's rules take time by the square of a word's length.
_ENDLESS = re.compile(rf"\S{{{_LONGEST_RUN}}}(?=\S)")
_CJK = "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_FIRST_CJK = _CJK[0]
_CJK_RUN = re.compile(f"[{_CJK}]+")
_CJK_LINE_END = re.compile(f"(?<=[{_CJK}])[ \t]*\r?\n[ \t]*(?=[{_CJK}])")


def indexed(text: str) -> str:
    """The text of a page to be indexed. Scripts that put no space between words become pairs of characters: `ABC` is
    indexed as `AB BC C`."""
    text = _fit(text[:MAX_INDEXED_CHARACTERS])
    if not text.isascii():
        if max(text) >= _FIRST_CJK:
            text = _CJK_RUN.sub(_pairs, _CJK_LINE_END.sub("", text))
        if len(text) * 4 > MAX_INDEXED_BYTES and len(text.encode()) > MAX_INDEXED_BYTES:
            text = text.encode()[:MAX_INDEXED_BYTES].decode(errors="ignore")
    return text


def asked(text: str) -> tuple[str, bool]:
    """What is looked for, and whether it is to be a prefix: one such character is found by the pairs that it begins.
    The last one of a longer run is left out, because it stands alone only where the run ends on the page."""
    text = _fit(text)
    runs = list(_CJK_RUN.finditer(text))
    if not runs:
        return text, False
    ends = not any(letter.isalnum() for letter in text[runs[-1].end() :])
    pieces, begin = [], 0
    for run in runs:
        last = run is runs[-1] and ends
        pairs = _pairs(run)
        pieces += [text[begin : run.start()], pairs.rstrip()[:-2] if last and len(run[0]) > 1 else pairs]
        begin = run.end()
    return "".join((*pieces, text[begin:])), ends and len(runs[-1][0]) == 1


def _fit(text: str) -> str:
    # What is not in a text need not be looked for letter by letter: a page has few different ones.
    if not text.isascii():
        # Ligatures and wide letters become the letters that people type.
        text = unicodedata.normalize("NFKC", text.replace(_SOFT_HYPHEN, ""))
    letters = set(text)
    if not letters.isdisjoint(_UNFIT_LETTERS):
        text = _UNFIT.sub(" ", text)
    if not text.isascii():
        text = _without_signs(text, letters)
    # Looked for by the words' lengths first: the pattern costs more than all the rest.
    if len(text) > _LONGEST_RUN and max(map(len, text.split()), default=0) > _LONGEST_RUN:
        text = _ENDLESS.sub(r"\g<0> ", text)
    return text


def _without_signs(text: str, letters: set[str]) -> str:
    """Signs, symbols and spaces beyond ASCII become blanks: Postgres takes them for letters where the database's locale
    is not one of the operating system."""
    signs = [letter for letter in letters if letter > "\x7f" and _is_sign(letter)]
    if len(signs) > _FEW_SIGNS:
        return text.translate(dict.fromkeys(map(ord, signs), " "))
    for sign in signs:
        text = text.replace(sign, " ")
    return text


@functools.lru_cache(maxsize=4096)
def _is_sign(letter: str) -> bool:
    return letter in "\u200b\ufeff" or (letter < "\U00020000" and unicodedata.category(letter)[0] in "PSZ")


def _pairs(run: re.Match[str]) -> str:
    letters = run[0]
    return " " + " ".join(letters[at : at + 2] for at in range(len(letters))) + " "
