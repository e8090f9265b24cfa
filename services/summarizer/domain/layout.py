"""Turns the lines of a chunk into paragraphs of running text: without headers, footers, page numbers, headings,
captions and the list of references, with words joined that were hyphenated at a line end."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from services.summarizer.domain.folding import ends_hyphenated, is_spaceless
from services.summarizer.domain.values import Chunk


class Section(Enum):
    """Where in a document a paragraph stands, as far as that changes how much it says about the whole."""

    BODY = "body"
    ABSTRACT = "abstract"
    CONCLUSION = "conclusion"
    REFERENCES = "references"
    ASIDE = "aside"
    """Acknowledgements and the like: true prose that nobody wants in a summary."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text. `pages` tells where the text of a page begins: (offset, page number), ascending."""

    text: str
    pages: tuple[tuple[int, int], ...]
    section: Section


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    page: int


_NUMBERING = r"(?:(?:\d{1,2}(?:\.\d{1,2}){0,3}|[IVX]{1,5}|[A-H])[.):]?\s+)?"
_HEADINGS: tuple[tuple[Section, str], ...] = (
    (
        Section.ABSTRACT,
        "abstract|summary|executive summary|synopsis|zusammenfassung|kurzfassung|überblick|résumé|resumen|riassunto|"
        "sommario|resumo|samenvatting",
    ),
    (
        Section.CONCLUSION,
        "conclusions?|concluding remarks|conclusions? and (?:future work|outlook|discussion)|"
        "discussion and conclusions?|"
        "summary and (?:conclusions?|outlook|discussion)|fazit|schluss|schlussfolgerung(?:en)?|"
        "zusammenfassung und ausblick|conclusiones|conclusioni|conclusões|conclusie",
    ),
    (
        Section.REFERENCES,
        "references(?: and notes)?|bibliography|literature(?: cited)?|works cited|literatur(?:verzeichnis)?|"
        "quellen(?:verzeichnis)?|références|bibliographie|referencias|bibliografía|bibliografia|referências|"
        "riferimenti(?: bibliografici)?|literatuur(?:lijst)?|referenties",
    ),
    (
        Section.ASIDE,
        "acknowledge?ments?|funding|author contributions?|conflicts? of interest|competing interests|data availability|"
        "data availability statement|danksagung(?:en)?|remerciements|agradecimientos|ringraziamenti|agradecimentos|"
        "dankwoord|key ?words|index terms|(?:table of )?contents|inhalt(?:sverzeichnis)?",
    ),
    (
        Section.BODY,
        "introduction|motivation|background|appendix|appendices|related work|methods?|results|discussion|einleitung|"
        "einführung|anhang|introducción|introduzione|introdução|inleiding|annexe|apéndice|appendice|apêndice|bijlage",
    ),
)
_WHOLE_LINE = tuple((s, re.compile(rf"{_NUMBERING}(?:{names})\s*[:.]?", re.IGNORECASE)) for s, names in _HEADINGS)
# `Abstract—We show …`: the heading and the text share a line.
_RUN_IN = re.compile(
    r"(?P<abstract>abstract|zusammenfassung|résumé|resumen|riassunto|resumo|samenvatting)\s*[:.\u2013\u2014-]+\s*(?=\S)|"
    r"(?P<aside>key ?words|index terms|schlagwörter|mots[ -]clés|palabras clave)\b[.:\s\u2013\u2014-]*(?=\S)|"
    r"(?P<ack>acknowledge?ments?)\s*[.:\u2013\u2014-]+\s*(?=\S)",
    re.IGNORECASE,
)
_CAPTION = re.compile(
    r"(?:fig(?:ure|ura|uur)?|tab(?:le|elle|leau|la|ella|ela|el)?|abb(?:ildung)?|algorithm|listing|scheme|chart)"
    r"\.?\s*(?:\d{1,3}|[IVX]{1,4}|[A-Z]\.?\d{1,2})(?:\.\d{1,3})*\s*(?:[.:|\u2013\u2014]|$)",
    re.IGNORECASE,
)
_PAGE_NUMBER = re.compile(r"\W*(?:page|seite|p\.)?\s*(?:\d{1,5}|[ivxlc]{1,7})(?:\s*(?:/|of|von)\s*\d{1,5})?\W*", re.I)
_YEAR = re.compile(r"\b(?:1[89]|20)\d{2}[a-z]?\b")
_BULLET = re.compile(r"^[\u2022\u25aa\u25cf\u25e6\u2023\u2043*\uf0b7\u00b7]\s*")
_SENTENCE_END = re.compile(r"[.!?:;\u3002\uff01\uff1f][)\]\"'\u2019\u201d\u00bb]*$")

_NUMBERED = re.compile(r"(?:\d{1,2}(?:\.\d{1,2}){0,3}|[IVX]{1,5}|[A-H])[.)]?\s+[^\W\d_].*")

# Ligatures as their letters; controls and the replacement character say nothing.
_READABLE = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)} | dict.fromkeys(
    [*range(0x09), *range(0x0E, 0x1C), 0x7F, 0xFFFD], ""
)

_COMPOUND = re.compile(r"[^\W\d_]{1,40}-[^\W\d_]{1,40}")

_EDGE_LINES = 3
_PAGE_NUMBER_CHARS = 40
# Prose has no longer paragraphs; the work for a line grows with the paragraph that it is added to.
_MAX_PARAGRAPH_CHARS = 8_000
_WORD_CHARS = 48
_END_CHARS = 8
_HEADING_CHARS = 80
_SHORT_LINE_SHARE = 0.6
_FRONT_MATTER_CHARS = 3_000
_REFERENCE_LINES = 30
_LINES_PER_YEAR = 6


def paragraphs(chunk: Chunk) -> Iterator[Paragraph]:
    """The running text of the chunk, in order, without the sections that never belong into a summary."""
    clean = _clean_lines(chunk)
    reader = _Reader(chunk.text, full_line_chars=_full_line_chars(clean))
    for index, line in enumerate(clean):
        yield from reader.read(line, clean[index + 1 : index + 1 + _REFERENCE_LINES])
    yield from reader.close(reader.section)


def _full_line_chars(clean: list[_Line]) -> int:
    """Length of a line that is as long as its column: four of five are shorter or as long."""
    sizes = sorted(len(line.text) for line in clean if line.text)
    return sizes[len(sizes) * 4 // 5] if sizes else 0


def lines(chunk: Chunk) -> Iterator[tuple[str, int]]:
    """The lines of the chunk that carry text, with their pages, for documents that hold no running text."""
    for line in _clean_lines(chunk):
        if line.text:
            yield line.text, line.page


def _clean_lines(chunk: Chunk) -> list[_Line]:
    """Lines without page numbers and without what is repeated, both at the edges of pages alone: in the middle of a
    page such a line is a part of its text. Where that would leave nothing, what is repeated stays."""
    pages: list[tuple[int, list[str]]] = []
    for start, end, page in chunk.spans:
        texts = [" ".join(line.translate(_READABLE).split()) for line in chunk.text[start:end].splitlines()]
        numbers = {i for i in _edge(texts) if _is_page_number(texts[i])}
        kept_texts = [text for i, text in enumerate(texts) if i not in numbers]
        # Of empty lines in a row one is enough.
        pages.append((page, [t for i, t in enumerate(kept_texts) if t or (i and kept_texts[i - 1])]))
    edges = Counter(shape for _, texts in pages for shape in {_shape(texts[i]) for i in _edge(texts)})
    # Left and right pages may carry different headers, and the first page of a chapter none.
    repeated = {shape for shape, times in edges.items() if times >= max(3, len(pages) // 5)}
    kept: list[_Line] = []
    for page, texts in pages:
        dropped = {i for i in _edge(texts) if _shape(texts[i]) in repeated}
        kept.extend(_Line(text, page) for i, text in enumerate(texts) if i not in dropped)
    if any(line.text for line in kept):
        return kept
    # Forms and slips of a few lines each, all alike: what is repeated is the document.
    return [_Line(text, page) for page, texts in pages for text in texts]


def _edge(texts: list[str]) -> set[int]:
    """Indexes of the first and last few lines that carry text."""
    filled = [index for index, text in enumerate(texts) if text]
    return {*filled[:_EDGE_LINES], *filled[-_EDGE_LINES:]}


def _is_page_number(line: str) -> bool:
    return len(line) <= _PAGE_NUMBER_CHARS and _PAGE_NUMBER.fullmatch(line) is not None


def _shape(line: str) -> str:
    """What the same header has in common on all its pages."""
    return re.sub(r"\d+", "#", line).casefold()


class _Reader:
    """Puts lines together to paragraphs, one line at a time, with a look at those that follow."""

    def __init__(self, text: str, *, full_line_chars: int) -> None:
        self.section = Section.BODY
        self._compounds = {match.group() for match in _COMPOUND.finditer(text)}
        self._full_line_chars = full_line_chars
        self._text = ""
        self._pages: list[tuple[int, int]] = []
        self._last_line_chars = 0
        self._section_chars = 0

    def read(self, line: _Line, following: list[_Line]) -> Iterator[Paragraph]:
        """Takes a line; yields the paragraph that it ends."""
        if not line.text:
            if not self._runs_on(following):
                yield from self.close(self.section)
            return
        heading = _known_heading(line.text, following)
        if heading is not None:
            yield from self.close(heading)
            return
        run_in = _RUN_IN.match(line.text)
        if run_in is not None:
            yield from self.close(Section.ABSTRACT if run_in["abstract"] else Section.ASIDE)
            self._append(line.text[run_in.end() :], line.page)
            return
        if self._stands_alone(line.text, following):
            yield from self.close(self._section_after(line.text))
            return
        if _BULLET.match(line.text) or _CAPTION.match(line.text) or len(self._text) > _MAX_PARAGRAPH_CHARS:
            yield from self.close(self.section)
        self._append(_BULLET.sub("", line.text), line.page)

    def close(self, section: Section) -> Iterator[Paragraph]:
        """Ends the paragraph; what comes next stands in `section`."""
        if self._text and self.section not in (Section.REFERENCES, Section.ASIDE) and not _CAPTION.match(self._text):
            yield Paragraph(self._text, tuple(self._pages), self.section)
        self._section_chars = self._section_chars + len(self._text) if section is self.section else 0
        if section in (Section.ABSTRACT, Section.ASIDE) and self._section_chars > _FRONT_MATTER_CHARS:
            # Where no heading ends it, it must not swallow the document.
            section = Section.BODY
        self._text, self._pages, self.section = "", [], section

    def _append(self, text: str, page: int) -> None:
        joint = " "
        if not self._text or (is_spaceless(self._text[-1]) and is_spaceless(text[:1] or " ")):
            joint = ""
        elif ends_hyphenated(self._last_word()) and text[:1].islower():
            joint = ""
            # `well-` and `known` stay `well-known` where the document writes it so elsewhere.
            compound = _COMPOUND.match(self._last_word().lstrip("(\"'") + text.split(" ", 1)[0])
            if compound is None or compound.group() not in self._compounds:
                self._text = self._text[:-1]
        self._text += joint
        if not self._pages or self._pages[-1][1] != page:
            self._pages.append((len(self._text), page))
        self._text += text
        self._last_line_chars = len(text)

    def _last_word(self) -> str:
        return self._text[-_WORD_CHARS:].rsplit(" ", 1)[-1]

    def _runs_on(self, following: list[_Line]) -> bool:
        """Whether the open sentence goes on after the gap, on this page or the next."""
        after = next((line.text for line in following if line.text), "")
        return bool(self._text) and not _ends_sentence(self._text) and after[:1].islower()

    def _stands_alone(self, text: str, following: list[_Line]) -> bool:
        """Whether the line looks like a heading: short, unfinished, and not the middle of a sentence."""
        after = next((line.text for line in following if line.text), "")
        if self._text and not _ends_sentence(self._text) and not self._broke_off(after):
            return False
        # Among formulas few lines are full: there the line of text that follows is the measure.
        is_short = len(text) < _SHORT_LINE_SHARE * max(self._full_line_chars, len(after))
        return is_short and not _ends_sentence(text) and not after[:1].islower() and not text.endswith(("-", ","))

    def _broke_off(self, after: str) -> bool:
        """Whether the open sentence is none, such as a heading or a list: its line was not full, and after the line in
        question full ones begin again."""
        shortest = _SHORT_LINE_SHARE * self._full_line_chars
        gave_up = self._last_line_chars < shortest and not self._text.endswith(("-", ","))
        return gave_up and after[:1].isupper() and len(after) >= shortest

    def _section_after(self, heading: str) -> Section:
        """An unknown heading ends an aside, and any section if it carries a number. References hold such lines too."""
        if self.section is Section.REFERENCES:
            return self.section
        ends = self.section is Section.ASIDE or _NUMBERED.fullmatch(heading) is not None
        return Section.BODY if ends else self.section


def _ends_sentence(text: str) -> bool:
    return _SENTENCE_END.search(text[-_END_CHARS:]) is not None


def _known_heading(text: str, following: list[_Line]) -> Section | None:
    if len(text) > _HEADING_CHARS:
        return None
    section = next((section for section, pattern in _WHOLE_LINE if pattern.fullmatch(text)), None)
    if section is Section.REFERENCES and not _are_references(following):
        return None
    return section


def _are_references(following: list[_Line]) -> bool:
    """Whether the lines name years as often as references do; the entry of a table of contents is not followed so."""
    filled = [line.text for line in following if line.text]
    return sum(bool(_YEAR.search(text)) for text in filled) * _LINES_PER_YEAR >= max(len(filled), 1)
