"""Placeholders for personal data: put in before text leaves for a provider, and taken out of what comes back.

A placeholder is `[EMAIL_1]`: the kind, and a number by which the values of one request are told apart, in the order in
which they come. It says nothing of its value, and the same request has the same ones, so that what was paid for is
found again. What looks like a placeholder in a document is given one itself (`[TEXT_1]`), so that none can be forged.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from services.runtime.errors import FailedPrecondition
from services.summarizer.domain.personal_data import Finder, Found, plainly
from services.summarizer.domain.personal_kinds import Counts, Kind, Kinds
from services.summarizer.domain.personal_names import learn
from services.summarizer.domain.prompts import speakable

MAX_ITEMS = 100_000
"""Most different values of one request: some 40 MB."""

_MOST_ROUNDS = 4
_TEXT = "TEXT"
_WORDS = "|".join((*(kind.value for kind in Kind), _TEXT))
_MAX_DIGITS = 6
PLACEHOLDER = re.compile(rf"\[({_WORDS})_(\d{{1,{_MAX_DIGITS}}})\]")
_ALIKE = re.compile(rf"\[ {{0,3}}(?:{_WORDS})[ _-]{{0,3}}\d{{1,9}} {{0,3}}\]", re.IGNORECASE)
"""What a reader, or a model, could take for one."""
_BEGUN = re.compile(rf"\[[A-Z]{{0,9}}(?:_\d{{0,{_MAX_DIGITS}}})?")
_MAX_HELD_CHARS = max(map(len, _WORDS.split("|"))) + len("[_") + _MAX_DIGITS


class Veil:
    """What was replaced in one request. `kinds` are what is looked for."""

    def __init__(self, kinds: Kinds) -> None:
        self.kinds = kinds
        self._finder = Finder(kinds)
        self._placeholders: dict[tuple[str, str], str] = {}
        self._values: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()

    def learn(self, text: str) -> None:
        """Takes in the names that the text announces, so that they are hidden wherever they stand. To be called for all
        texts of the request before anything of it is hidden."""
        if Kind.PERSON in self.kinds:
            learn(plainly(speakable(text)), self._finder.names)

    def hide(self, text: str) -> str:
        """The text as it may be told a model (prompts.speakable), with placeholders.

        Raises FailedPrecondition TOO_MUCH_PERSONAL_DATA.
        """
        text = speakable(text)
        found = self._finder.find(text, [alike.span() for alike in _ALIKE.finditer(plainly(text))])
        for _ in range(_MOST_ROUNDS):
            if not found:
                break
            text = self._covered(text, found)
            # What stood beside a value may be one itself, now that it stands by itself.
            found = self._finder.find(text)
        return text

    def restore(self, text: str, written: Callable[[str], str] = str) -> str:
        """The text with the values, each as `written` writes it. A placeholder that was not given out stays as it is;
        so does what a value says."""

        def value(found: re.Match[str]) -> str:
            known = self._values.get(found.group())
            return found.group() if known is None else written(known)

        return PLACEHOLDER.sub(value, text)

    def keep(self, texts: Iterable[str]) -> None:
        """Forgets the placeholders that stand in none of the texts: these alone were sent."""
        used = {found.group() for text in texts for found in PLACEHOLDER.finditer(text)}
        self._values = {placeholder: value for placeholder, value in self._values.items() if placeholder in used}

    def counts(self) -> Counts:
        """How many different values were replaced, by kind; kinds without any are left out."""
        words = Counter(PLACEHOLDER.fullmatch(placeholder)[1] for placeholder in self._values)  # type: ignore[index]
        return {kind: words[kind.value] for kind in Kind if words[kind.value]}

    def _covered(self, text: str, found: Sequence[Found]) -> str:
        parts, end = list[str](), 0
        for one in found:
            word = _TEXT if one.kind is None else one.kind.value
            parts += (text[end : one.start], self._placeholder(word, text[one.start : one.end]))
            end = one.end
        return "".join((*parts, text[end:]))

    def _placeholder(self, word: str, value: str) -> str:
        # Where a line ends within a number, it is the same number.
        value = value if word == _TEXT else " ".join(value.split())
        known = self._placeholders.get((word, value))
        if known is not None:
            return known
        if len(self._placeholders) >= MAX_ITEMS:
            raise FailedPrecondition(
                "TOO_MUCH_PERSONAL_DATA",
                f"More than {MAX_ITEMS:,} different values would have to be replaced. Split the document, or have "
                "fewer kinds replaced.",
            )
        self._numbers[word] += 1
        placeholder = f"[{word}_{self._numbers[word]}]"
        self._placeholders[word, value] = placeholder
        self._values[placeholder] = value
        return placeholder


class Restoring:
    """Restores a text that comes in pieces, cut anywhere: what could become a placeholder is kept back."""

    def __init__(self, veil: Veil | None) -> None:
        """Without a veil nothing is kept back."""
        self._veil = veil
        self._held = ""

    def feed(self, piece: str) -> str:
        """What is certain by this piece."""
        if self._veil is None:
            return piece
        text = self._held + piece
        begun = text.rfind("[", max(0, len(text) - _MAX_HELD_CHARS))
        cut = begun if begun >= 0 and _BEGUN.fullmatch(text, begun) else len(text)
        self._held = text[cut:]
        return self._veil.restore(text[:cut])

    def finish(self) -> str:
        """What was kept back."""
        rest, self._held = self._held, ""
        return rest if self._veil is None else self._veil.restore(rest)
