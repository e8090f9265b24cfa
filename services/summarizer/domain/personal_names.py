"""Names of people after a title or a label, wherever else they stand, and dates of birth after a label.

A name that nothing announces is not found: docs/anonymising.md says so. A word that is taken for a name by mistake
costs little, since it is given back in the answer.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from services.summarizer.domain.language import FUNCTION_WORDS
from services.summarizer.domain.personal_numbers import Span

MAX_NAMES = 20_000
"""So many names of one request are looked for again elsewhere."""
_MOST_WORDS = 4
_MOST_TITLES = 6
_LEAST_CHARS = 3
_MOST_CHARS = 40


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _cased(words: str) -> frozenset[str]:
    """The words as they are, and in capitals."""
    return frozenset(form for word in words.split() for form in (word, word.upper()))


_TITLES = _cased(
    "Herr Herrn Frau Fr\u00e4ulein Mr Mrs Ms Miss Mx Dr Prof Professor Monsieur Madame Mademoiselle Mme "
    "Mlle Se\u00f1or Se\u00f1ora Sr Sra Srta Signor Signora Sig Dott Dottor Dottoressa Senhor Senhora Dhr "
    "Meneer Mevrouw Mevr Mw Pan Pani"
)
_LINKED = _words("med jur rer nat phil ing h c dipl") | frozenset(word.lower() for word in _TITLES)
"""What may stand between a title and a name, in small letters."""
_STRONG = _words(
    "surname lastname firstname forename nachname familienname vorname vornamen geburtsname patient "
    "patientin versicherter versicherte ansprechpartner ansprechpartnerin kontoinhaber kontoinhaberin "
    "karteninhaber antragsteller antragstellerin unterzeichner unterzeichnerin mieter mieterin vermieter "
    "vermieterin arbeitnehmer arbeitnehmerin mandant mandantin pr\u00e9nom pr\u00e9noms apellido "
    "apellidos cognome apelido achternaam voornaam cardholder applicant employee insured beneficiary "
    "tenant landlord claimant defendant plaintiff signatory guardian spouse"
)
_WEAK = _words("name names nom nombre nome naam")
_PERSONAL = _words("first last family given middle maiden birth full de")
_IMPERSONAL = _words(
    "file product domain host user company firm brand project field column table class variable service "
    "event team display legal trade business organisation organization document model"
)
_PARTICLES = _words(
    "von van vom zu zur zum de del della der den di da dos das do la le ten ter bin ibn al el y e af av"
)
_BIRTH = _words(
    "born birth dob birthdate birthday geboren geb geburtsdatum geburtstag n\u00e9 n\u00e9e naissance "
    "nacido nacida nacimiento nato nata nascita nascido nascida nascimento geboortedatum urodzony "
    "urodzona urodzenia"
)
_NOT_NAMES = frozenset().union(*FUNCTION_WORDS.values()) | _words(
    "january february march april may june july august september october november december januar februar "
    "m\u00e4rz mai juni juli oktober dezember monday tuesday wednesday thursday friday saturday sunday "
    "montag dienstag mittwoch donnerstag freitag samstag sonntag and und et y"
)


def _spelled(words: frozenset[str]) -> frozenset[str]:
    return frozenset(form for word in words for form in (word, word.capitalize(), word.upper()))


_SEEDS = _spelled(_STRONG | _WEAK) | _TITLES
_BIRTH_SEEDS = _spelled(_BIRTH)

_WORD = re.compile(r"[^\W\d_]+")
_MONTH = r"[^\W\d_]{3,12}\.?"
_DATE = re.compile(
    r"(?<!\d)(?:\d{1,2} ?[./-] ?\d{1,2} ?[./-] ?(?:\d{4}|\d{2})|\d{4}[./-]\d{1,2}[./-]\d{1,2}"
    rf"|\d{{1,2}}(?:st|nd|rd|th|er|\.|\u00ba)?[ \n-]{{1,2}}(?:(?:de|of) )?{_MONTH},?[ \n-]{{1,2}}(?:del? )?\d{{2,4}}"
    rf"|(?<![^\W\d_]){_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,?[ \n]\d{{4}})(?!\d)"
)
_BIRTH_REACH = 60
"""So near after its label a date is one of birth."""
_LABEL_END = re.compile(r"(?:\(s\)|[/*]?in(?:nen)?)?[ ]{0,2}[:\uff1a][ ]{0,12}\n?[ ]{0,12}")
_TITLE_END = re.compile(r"\.?[ ]{0,2}\n?[ ]{0,12}")


@dataclass(slots=True)
class Names:
    """Names that were learnt, as runs of words, by their first word."""

    by_first: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    starts: set[str] = field(default_factory=set)
    """Those first words, also with an s behind them."""
    count: int = 0

    def add(self, words: Sequence[str]) -> None:
        """Looks for these words, in this order, from now on."""
        run = tuple(words)
        for form in {run, tuple(word.upper() for word in run)}:
            runs = self.by_first.setdefault(form[0], [])
            if form not in runs and self.count < MAX_NAMES:
                runs.append(form)
                self.starts |= {form[0], f"{form[0]}s"}
                # The longest first.
                runs.sort(key=len, reverse=True)
                self.count += 1


def learn(text: str, names: Names) -> None:
    """Takes names in that a title or a label announces: the whole name, and after a title also its parts."""
    if _SEEDS.isdisjoint(_WORD.findall(text)):
        return  # as most pages
    words = list(_WORD.finditer(text))
    for index, word in enumerate(words):
        if word.group() not in _SEEDS:
            continue
        found = _announced(text, words, index)
        if found is None:
            continue
        run, parts_too = found
        spelled = [words[number].group() for number in run]
        if len(run) > 1:
            names.add(spelled)
        if parts_too:
            for part in spelled:
                if len(part) >= _LEAST_CHARS and part.lower() not in _NOT_NAMES and part.lower() not in _PARTICLES:
                    names.add([part])


def people(text: str, names: Names) -> Iterator[Span]:
    """Names after titles and labels, and those that were learnt."""
    spellings = _WORD.findall(text)
    if _SEEDS.isdisjoint(spellings) and names.starts.isdisjoint(spellings):
        return
    words = list(_WORD.finditer(text))
    for index, word in enumerate(words):
        spelled = word.group()
        if spelled in _SEEDS and (found := _announced(text, words, index)) is not None:
            run, _ = found
            yield words[run[0]].start(), words[run[-1]].end()
        for form in (spelled, spelled[:-1]) if spelled[-1:] == "s" else (spelled,):
            for known in names.by_first.get(form, ()):
                if (end := _stands(text, words, index, known)) is not None:
                    yield word.start(), end
                    break


def births(text: str) -> Iterator[Span]:
    """Dates of birth after a label."""
    if _BIRTH_SEEDS.isdisjoint(_WORD.findall(text)):
        return
    for word in _WORD.finditer(text):
        if word.group() in _BIRTH_SEEDS:
            found = _DATE.search(text, word.end(), min(len(text), word.end() + _BIRTH_REACH))
            # What a placeholder stands for was the date.
            if found is not None and "[" not in text[word.end() : found.start()]:
                yield found.span()


def _announced(text: str, words: Sequence[re.Match[str]], index: int) -> tuple[range, bool] | None:
    """The words of the name that the word at `index` announces, and whether its parts are names by themselves."""
    word = words[index].group()
    if word in _TITLES:
        first = index + 1
        while first < min(len(words), index + _MOST_TITLES) and words[first].group().lower() in _LINKED:
            if not _TITLE_END.fullmatch(text, words[first - 1].end(), words[first].start()):
                return None
            first += 1
        if first >= len(words) or not _TITLE_END.fullmatch(text, words[first - 1].end(), words[first].start()):
            return None
        run = _name(text, words, first)
        return (run, True) if run else None
    label = word.lower()
    if label not in _STRONG and label not in _WEAK:
        return None
    before = words[index - 1].group().lower() if index and words[index].start() - words[index - 1].end() <= 2 else ""
    ends = _LABEL_END.match(text, words[index].end())
    if ends is None or before in _IMPERSONAL:
        return None
    first = index + 1
    if first < len(words) and words[first].start() < ends.end():
        first += 1  # the ending of a label, such as /in
    if first < len(words) and words[first].group() in _TITLES:
        return None  # the title announces it
    if first >= len(words) or words[first].start() != ends.end():
        return None
    run = _name(text, words, first)
    return (run, label in _STRONG or before in _PERSONAL) if run else None


def _name(text: str, words: Sequence[re.Match[str]], first: int) -> range | None:
    """The words of a name from `first` on: capitalised ones, with particles between them, in one line."""
    last, taken, index = -1, 0, first
    while index < len(words) and taken < _MOST_WORDS:
        word = words[index].group()
        if index > first and not _is_joint(
            words[index - 1].group(), text[words[index - 1].end() : words[index].start()]
        ):
            break
        if word[0].isupper() and len(word) <= _MOST_CHARS and not _is_function(word, alone=index == first):
            last, taken = index, taken + 1
        elif word.lower() not in _PARTICLES:
            break
        index += 1
    return range(first, last + 1) if last >= 0 else None


def _is_function(word: str, *, alone: bool) -> bool:
    """Whether the word begins a sentence rather than a name, as in: She is a Dr. He is one too."""
    return len(word) > 1 and word.lower() in _NOT_NAMES and (alone or word.lower() not in _PARTICLES)


def _is_joint(before: str, gap: str) -> bool:
    """Whether two words are of one name: by a space, a hyphen, an apostrophe, or the point of an initial."""
    return gap in (" ", "-", "'", "\u2019") or (gap in (". ", ".") and len(before) <= 2)


def _stands(text: str, words: Sequence[re.Match[str]], index: int, known: tuple[str, ...]) -> int | None:
    """Where the words end that stand here, or None where others do. The last may have an s behind it."""
    if index + len(known) > len(words):
        return None
    for offset, wanted in enumerate(known):
        here = words[index + offset]
        if offset and (gap := text[words[index + offset - 1].end() : here.start()]).strip(" \n.-'\u2019"):
            return None
        if offset and len(gap) > 3:
            return None
        if here.group() != wanted:
            is_last = offset == len(known) - 1
            return here.end() - 1 if is_last and here.group() == f"{wanted}s" else None
    return words[index + len(known) - 1].end()
