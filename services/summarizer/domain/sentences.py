"""The sentences of a chunk that are worth showing: whole, of running text, each with the pages that it stands on."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from services.summarizer.domain.folding import is_spaceless
from services.summarizer.domain.language import function_words, possible_languages
from services.summarizer.domain.layout import Paragraph, Section, paragraphs
from services.summarizer.domain.values import Chunk, Quote

MIN_CHARS = 30
MAX_CHARS = 600
_MIN_WORDS = 6
_MIN_CHARS_SPACELESS = 12
# Running text is mostly letters, joined by function words. Formulas, tables and name lists are not.
_MIN_LETTER_SHARE = 0.75
_MIN_COMMON_SHARE = 0.15
_MAX_LETTERS_ALONE = 0.2
_MAX_CAPITALISED = 0.6
_MAX_INITIALS = 2
_MAX_WORD_CHARS = 35
_ABBREVIATION_CHARS = 24

_ABBREVIATIONS = frozenset(
    """
    al approx art bzw ca cf ch chap co corp dept dr ed eds eq eqs est et etc fig figs gen gov hrsg inc int jr lt ltd max
    min mr mrs ms mt no nos nr op ph pp prof ref refs resp rev sec sect sen sog sr st str tab usw vgl vol vols vs zb
    e.g i.e u.a d.h z.b o.ä i.d.r ff mme mlle p.ex ej sra sig
    """.split()  # noqa: SIM905 - one word a line would hide that this is a list of words
)
# Each run of marks is tried once, from its first, and never given back: the work grows with the text and no faster.
_ENDING = re.compile(
    r"(?<![.!?])[.!?]++[)\]\"'\u2019\u201d\u00bb]*+\s++"
    r"(?=[\"'(\[\u2018\u201c\u201e\u00ab\u00bf\u00a1]*+[^\W_a-z\u00df-\u00ff])"
    r"|[\u3002\uff01\uff1f]++[\u300d\u300f\uff09]*+\s*+"
)
_TERMINAL = re.compile(r"[.!?\u3002\uff01\uff1f][)\]\"'\u2019\u201d\u00bb\u300d\u300f\uff09]*$")
_LAST_WORD = re.compile(r"([^\s(\[\"'\u201c\u201e]+)$")
_WORD = re.compile(r"[^\W\d_]+")
_JUNK = re.compile(
    r"@|https?:|www\.|\bdoi\b|\barXiv:|\u00a9|all rights reserved|\.{4}|(?:\. ){3}|[{}]|:=", re.IGNORECASE
)
_ENTRY = re.compile(
    r"^(?:\[[\w+ ]{1,12}\]|\d{1,3}\.)\s|\b(?:pp?\.|vol\.|eds?\.)\s*\d|\b(?:19|20)\d{2}[a-z]?[,.;:)]\s*[\"\u201c\u201e]"
)
_HALF = re.compile(r"[^\W\d_]{1,2}\.")
_GARBLED = re.compile(r"\b(?=\w*[a-z])\w(?:\w*?[A-Z]){3}")
_INITIALS = re.compile(r"\b[A-Z]\.")


@dataclass(frozen=True, slots=True)
class ProseSentence:
    """A sentence as it is read, the same words by page, and the section it stands in."""

    text: str
    quotes: tuple[Quote, ...]
    section: Section


def prose(chunk: Chunk) -> list[ProseSentence]:
    """The sentences of the chunk's running text, in order. What is not prose is left out: names, addresses, formulas,
    tables, entries of lists, unfinished lines."""
    common = function_words(possible_languages(chunk.text))
    return [
        sentence
        for paragraph in paragraphs(chunk)
        for sentence in _sentences(paragraph)
        if is_prose(sentence.text, common)
    ]


def split(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each sentence of a paragraph."""
    start = 0
    for match in _ENDING.finditer(text):
        before = text[max(start, match.start() - _ABBREVIATION_CHARS) : match.start()]
        if match.group().rstrip() == "." and _abbreviates(before, text[match.end() : match.end() + 3]):
            continue
        yield start, match.start() + len(match.group().rstrip())
        start = match.end()
    if start < len(text):
        yield start, len(text)


def _abbreviates(before: str, after: str) -> bool:
    """Whether the full stop belongs to what stands before it and ends no sentence."""
    match = _LAST_WORD.search(before)
    if match is None:
        return False
    word = match.group(1)
    if len(word) == 1 and word.isalpha():
        # Initials, and the first half of `z. B.`; a variable at the end of a sentence is followed by a whole word.
        return word.isupper() or _HALF.match(after) is not None
    # A bare number of one or two digits is a numbering or, in German, an ordinal.
    return word.lower() in _ABBREVIATIONS or (word.isdigit() and len(word) <= 2)


def _sentences(paragraph: Paragraph) -> Iterator[ProseSentence]:
    starts = [offset for offset, _ in paragraph.pages]
    for start, end in split(paragraph.text):
        first, last = bisect_right(starts, start) - 1, bisect_right(starts, end - 1) - 1
        # A sentence that goes over a page break quotes its part of each page.
        cuts = [start, *starts[first + 1 : last + 1], end]
        quotes = tuple(
            Quote(text, page=paragraph.pages[first + i][1])
            for i in range(len(cuts) - 1)
            if (text := paragraph.text[cuts[i] : cuts[i + 1]].strip())
        )
        yield ProseSentence(paragraph.text[start:end], quotes, paragraph.section)


def is_prose(text: str, common: frozenset[str]) -> bool:
    """Whether the text is a whole sentence of running text; `common` are the function words of its language, if any."""
    if not len(text) <= MAX_CHARS or _TERMINAL.search(text) is None or _JUNK.search(text) is not None:
        return False
    if text.count("(") != text.count(")") or text.count("[") != text.count("]"):
        return False
    marks = sum(not char.isspace() for char in text)
    if sum(char.isalpha() for char in text) < _MIN_LETTER_SHARE * marks:
        return False
    if sum(map(is_spaceless, text)) * 2 > len(text):
        return len(text) >= _MIN_CHARS_SPACELESS
    return len(text) >= MIN_CHARS and not text[0].islower() and _reads_like_prose(text, common)


def _reads_like_prose(text: str, common: frozenset[str]) -> bool:
    words = _WORD.findall(text)
    if len(words) < _MIN_WORDS or _ENTRY.search(text) or len(_INITIALS.findall(text)) > _MAX_INITIALS:
        return False
    # Text in a font without a character map comes out as endless words, or with capitals strewn in.
    if max(map(len, words)) > _MAX_WORD_CHARS or _GARBLED.search(text):
        return False
    if sum(len(word) == 1 for word in words) > _MAX_LETTERS_ALONE * len(words):
        return False
    if sum(word[0].isupper() for word in words[1:]) > _MAX_CAPITALISED * len(words):
        return False
    return not common or sum(word.lower() in common for word in words) >= _MIN_COMMON_SHARE * len(words)
