"""What a question asks for, and the searches that find the pages which may answer it.

A search for all words of a question finds next to nothing, and one for any of them next to everything. So a question
becomes a ladder of searches: for pages with all of its words, with all but one, with a few, with any; it is climbed
down until there are pages enough. "At least k of n words" is written as the search knows it: of every n - k + 1 of the
words, one.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from services.runtime.errors import FieldViolation, InvalidArgument
from services.summarizer.domain.folding import is_spaceless
from services.summarizer.domain.language import FUNCTION_WORDS
from services.summarizer.domain.matching import Terms, words_of
from services.summarizer.domain.ports_questions import Filters

DEFAULT_PASSAGES = 8
MAX_WORDS = 24
"""So many words of a question are looked for; the search takes 32."""
MAX_PHRASES = 2
MAX_QUERY_CHARS = 1_000
"""The contract's bound of SearchPagesRequest.query."""
_MAX_QUERY_TERMS = 32
_LADDER_WORDS = 6
"""With more words "at least two of them" is longer than a query may be; the most telling ones stand for the others."""
_MAX_WORD_CHARS = 60
_PHRASE = re.compile(
    r'["\u201c\u201d\u201e\u00ab\u00bb]([^"\u201c\u201d\u201e\u00ab\u00bb]{2,200})["\u201c\u201d\u00ab\u00bb]'
)
_WORD = re.compile(r"[^\W_]+(?:[-.,/][^\W_]+)*")

_ASKING: dict[str, str] = {
    "en": "what which who whom whose where when why how many much long often does did do done is are was were can "
    "could should would may might must tell me my give list find show explain describe please any some says say said "
    "according mean means",
    "de": "wer was wann wo wie warum wieso weshalb wen wem wessen welche welcher welches welchem welchen wieviel viel "
    "viele lange gibt gib nenne zeige erkläre bitte kann können muss müssen soll sollen darf dürfen wurde wurden war "
    "steht laut ist sind",
    "fr": "qui que quoi quel quelle quels quelles quand où comment pourquoi combien donne donnez liste explique il y "
    "selon est ce",
    "es": "qué quién quiénes cuál cuáles cuándo dónde cómo cuánto cuánta cuántos cuántas dime explica según es son "
    "está",
    "it": "chi che cosa quale quali quando dove come perché quanto quanta quanti quante secondo è sono",
    "pt": "quem qual quais quando onde como porque quanto quanta quantos quantas segundo é são",
    "nl": "wie wat welke wanneer waar hoe waarom hoeveel volgens is zijn",
}
"""Words that make a sentence a question and say nothing of what it asks for."""
_SILENT = {
    language: frozenset(folded for word in (*FUNCTION_WORDS[language], *asking.split()) for folded in words_of(word))
    for language, asking in _ASKING.items()
}


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the pages that may answer it. `documents` of the filters are sorted, each once."""

    text: str
    filters: Filters = field(default_factory=Filters)
    max_passages: int = DEFAULT_PASSAGES


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a question asks for: words as they are spelled there, without those that only ask, and quoted phrases."""

    words: tuple[str, ...]
    phrases: tuple[str, ...]

    @property
    def terms(self) -> Terms:
        """The same, to be compared with texts."""
        words = dict.fromkeys(folded for word in self.words for folded in words_of(word))
        return Terms(tuple(words), tuple(tuple(words_of(phrase)) for phrase in self.phrases))


def check(question: Question, *, field: str = "question") -> None:
    """Raises InvalidArgument QUESTION_INVALID where nothing is asked; `field` is the request's."""
    if not any(char.isalnum() for char in question.text):
        raise InvalidArgument(
            "QUESTION_INVALID",
            "The question says nothing: write it in words.",
            fields=[FieldViolation(field, "must have a letter or a digit")],
        )


def wanted(text: str) -> Wanted:
    """What the question asks for; all of its words where it has no others than those that ask."""
    phrases = [" ".join(match.split()) for match in _PHRASE.findall(text)]
    phrases = [phrase for phrase in dict.fromkeys(phrases) if words_of(phrase)][:MAX_PHRASES]
    words = list(_spelled(_PHRASE.sub(" ", text)))
    silent = _silent_words(words)
    telling = [word for word in words if not all(folded in silent for folded in words_of(word))]
    if not telling and not phrases:
        telling = words
    first: dict[str, str] = {}
    for word in telling:
        first.setdefault(" ".join(words_of(word)), word)
    return Wanted(tuple(first.values())[:MAX_WORDS], tuple(phrases))


def ladder(asked: Wanted) -> Iterator[str]:
    """Queries for SearchPages, the one that asks for most first; each finds all pages of the one before."""
    words = asked.words
    few = _most_telling(words)
    levels: list[list[tuple[str, ...]]] = [[(word,) for word in words]]
    levels += [_at_least(k, few) for k in sorted({len(few) - 1, 3, 2}, reverse=True) if 1 < k < len(few)]
    levels.append([words] if words else [])
    told: set[str] = set()
    for groups in levels:
        query = _query(asked.phrases, groups)
        terms = len(asked.phrases) + sum(map(len, groups))
        if query and query not in told and terms <= _MAX_QUERY_TERMS and len(query) <= MAX_QUERY_CHARS:
            told.add(query)
            yield query


def _at_least(least: int, words: Sequence[str]) -> list[tuple[str, ...]]:
    return list(combinations(words, len(words) - least + 1))


def _query(phrases: Sequence[str], groups: Sequence[Sequence[str]]) -> str:
    """All phrases, and one word of each group. In quotation marks nothing is a sign of the search."""
    parts = [f'"{phrase}"' for phrase in phrases]
    parts += [" or ".join(f'"{word}"' for word in group) for group in groups]
    return " ".join(parts)


def _most_telling(words: Sequence[str]) -> tuple[str, ...]:
    """The words to be found together: numbers and names first, then the long ones, in the question's order."""
    ranked = sorted(range(len(words)), key=lambda i: (-_tells(words[i]), -len(words[i]), i))
    return tuple(words[i] for i in sorted(ranked[:_LADDER_WORDS]))


def _tells(word: str) -> int:
    return 2 if any(char.isdigit() for char in word) else int(word[0].isupper())


def _spelled(text: str) -> Iterator[str]:
    for word in _WORD.findall(text):
        if is_spaceless(word[0]):
            yield from words_of(word)
        elif len(word) <= _MAX_WORD_CHARS:
            yield word


def question_language(text: str) -> str:
    """ISO 639-1 code of the language that the question seems to be in; empty where its words do not tell."""
    counts = _counts([part for word in _spelled(text) for part in words_of(word)])
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] else ""


def _silent_words(words: Sequence[str]) -> frozenset[str]:
    """Words that say nothing, in the languages that the question may be in."""
    counts = _counts([part for word in words for part in words_of(word)])
    most = max(counts.values())
    return frozenset().union(*(_SILENT[language] for language, n in counts.items() if n == most and n))


def _counts(folded: Sequence[str]) -> dict[str, int]:
    return {language: sum(word in own for word in folded) for language, own in _SILENT.items()}
