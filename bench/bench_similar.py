"""How often the answer to a part of a document serves one that is nearly the same, and never one that says otherwise.

A part is a page, or four, of a document; its answer are sentences of it, each with itself as its quote. Parts that say
the same: exported by another program (ligatures, quotation marks, hyphens at the ends of lines, spaces), with words
that were read wrongly, with words that were put otherwise outside of what the answer says. Parts that say something
else: a digit, a negation, or a word of the answer or of one quote is another one; the next part, of the document or of
another. One line for each share, and the time of a part of 16,000 tokens beside that of folding its words.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pymupdf

from bench.report import report, skip
from services.summarizer.domain.folding import fold
from services.summarizer.domain.language import NEGATIONS
from services.summarizer.domain.likeness import LEAST_ALIKE, LEAST_WORDS, Text, likeness
from services.summarizer.domain.values import Answer, Chunk, Claim, Quote, TokenCount

NAME = "similar_reuse"
QUESTION = b"the same for all"
SENTENCES = 7
MAX_PAGES = 16
_SEED = 20_261_128
_LIGATURES = {"fi": "\ufb01", "fl": "\ufb02", "ff": "\ufb00"}
_MARKS = str.maketrans({'"': "\u201c", "'": "\u2019"})
_CONFUSED = {"rn": "m", "m": "rn", "l": "i", "i": "l", "e": "c", "c": "e", "h": "b", "u": "n", "o": "a"}

Words = list[str]
Change = Callable[[Words, Answer, random.Random], Words]


def parts_of(path: Path) -> Iterator[Words]:
    """The words of each page, and of each four."""
    with pymupdf.open(path) as document:
        pages = [page.get_text().split() for page in document.pages(0, min(MAX_PAGES, document.page_count))]
    for size in (1, 4):
        for start in range(0, len(pages) - size + 1, size):
            words = [word for page in pages[start : start + size] for word in page]
            if sum(bool(fold(word)) for word in words) >= 2 * LEAST_WORDS:
                yield words


def text_of(words: Words) -> Text:
    text = " ".join(words)
    return Text(Chunk(0, text, ((0, len(text), 1),)))


def answer_of(words: Words, chance: random.Random) -> Answer:
    sentences = [s.strip() for s in re.findall(r"[A-Z][^.!?]{40,300}[.!?]", " ".join(words))]
    chosen = chance.sample(sentences, min(SENTENCES, len(sentences)))
    return Answer(tuple(Claim(said, (Quote(said, 1),)) for said in chosen), TokenCount(1, 1))


def _said(answer: Answer) -> set[str]:
    return {fold(word) for claim in answer.claims for word in claim.text.split()}


def _exported(words: Words, _: Answer, chance: random.Random) -> Words:
    changed = []
    for word in words:
        for letters, ligature in _LIGATURES.items():
            word = word.replace(letters, ligature)  # noqa: PLW2901
        if not any(char.isdigit() for char in word):
            word = word.translate(_MARKS)  # noqa: PLW2901
        if word.isalpha() and word.islower() and len(word) > 6 and chance.random() < 0.05:
            changed += [word[:4] + "-", word[4:]]
        else:
            changed.append(word)
    return changed


def _misread(share: float) -> Change:
    def change(words: Words, _: Answer, chance: random.Random) -> Words:
        return [_misread_word(word, chance) if word.isalpha() and chance.random() < share else word for word in words]

    return change


def _misread_word(word: str, chance: random.Random) -> str:
    able = [letters for letters in _CONFUSED if letters in word]
    if not able:
        return word
    letters = chance.choice(able)
    return word.replace(letters, _CONFUSED[letters], 1)


def _revised(words: Words, answer: Answer, chance: random.Random) -> Words:
    """A word of each hundred is another one, outside of the answer."""
    said = _said(answer)
    able = [
        at for at, word in enumerate(words) if word.isalpha() and word.islower() and fold(word) not in said | NEGATIONS
    ]
    changed = list(words)
    for at in chance.sample(able, min(len(able), len(words) // 100 + 1)):
        changed[at] = "otherwise"
    return changed


def _digit(words: Words, _: Answer, chance: random.Random) -> Words:
    return _one(words, chance, lambda word: bool(re.search(r"\d", word)), _next_digit)


def _next_digit(word: str) -> str:
    return re.sub(r"\d", lambda found: str((int(found.group()) + 1) % 10), word, count=1)


def _negation(words: Words, _: Answer, chance: random.Random) -> Words:
    return _one(words, chance, lambda word: word.isalpha() and word.islower(), lambda word: f"{word} not")


def _of_answer(words: Words, answer: Answer, chance: random.Random) -> Words:
    """A word of the answer is another one, wherever it stands."""
    stands = {fold(word) for word in words if word.isalpha()}
    able = sorted(word for word in _said(answer) & stands if len(word) > 3)
    wrong = chance.choice(able) if able else ""
    return ["elsewhere" if wrong and fold(word) == wrong else word for word in words]


def _in_quote(words: Words, answer: Answer, chance: random.Random) -> Words:
    """The same in one place, in a sentence that is quoted."""
    if not answer.claims:
        return words
    quoted = chance.choice(answer.claims).text.split()
    at = next((at for at in range(len(words)) if words[at : at + len(quoted)] == quoted), len(words))
    if at == len(words):
        return words
    able = [at + step for step, word in enumerate(quoted) if word.isalpha() and len(word) > 3]
    if not able:
        return words
    chosen = chance.choice(able)
    changed = [*words[:chosen], "elsewhere", *words[chosen + 1 :]]
    # The same sentence may stand in another place too.
    stands = "".join(map(fold, quoted)) in "".join(map(fold, changed))
    return words if stands else changed


def _one(words: Words, chance: random.Random, able: Callable[[str], bool], change: Callable[[str], str]) -> Words:
    places = [at for at, word in enumerate(words) if able(word)]
    if not places:
        return words
    at = chance.choice(places)
    return [*words[:at], *change(words[at]).split(), *words[at + 1 :]]


SAME: dict[str, Change] = {
    "exported": _exported,
    "misread_1_of_1000": _misread(0.001),
    "misread_1_of_200": _misread(0.005),
    "misread_1_of_50": _misread(0.02),
    "revised": _revised,
}
OTHERWISE: dict[str, Change] = {
    "digit": _digit,
    "negation": _negation,
    "word_of_answer": _of_answer,
    "word_of_quote": _in_quote,
}


def alike(one: Words, other: Words) -> float:
    """The share that their sketches tell."""
    sketches = [text_of(words).draw(QUESTION) for words in (one, other)]
    return likeness(*(drawn.sketch for drawn in sketches if drawn is not None))


def is_reused(bought: Words, answer: Answer, asked: Words) -> bool:
    """As similar.py decides."""
    earlier, text = text_of(bought), text_of(asked)
    one, other = earlier.draw(QUESTION), text.draw(QUESTION)
    if one is None or other is None or not set(one.bands) & set(other.bands):
        return False
    return likeness(one.sketch, other.sketch) >= LEAST_ALIKE and text.may_say(answer, earlier.marks(answer))


def measure(folder: Path) -> None:
    chance = random.Random(_SEED)
    paths = sorted(path for name in ("clean", "papers") for path in (folder / name).glob("*.pdf"))
    parts = [words for path in paths for words in parts_of(path)]
    answers = [answer_of(words, chance) for words in parts]
    for name, change in SAME.items():
        reused = [
            is_reused(words, answer, change(words, answer, chance))
            for words, answer in zip(parts, answers, strict=True)
        ]
        goal = {"exported": 0.99}.get(name, 0.0)
        shares = sorted(
            alike(words, change(words, answer, chance)) for words, answer in zip(parts, answers, strict=True)
        )
        detail = {
            "parts": len(parts),
            "alike_of_20": shares[len(shares) // 20],
            "alike_median": shares[len(shares) // 2],
        }
        report(f"{NAME}_{name}", ratio=sum(reused) / len(reused), goal=goal, better="higher", detail=detail)
    tried = dict.fromkeys([*OTHERWISE, "another"], 0)
    false = dict(tried)
    for name, change in OTHERWISE.items():
        for words, answer in zip(parts, answers, strict=True):
            changed = change(words, answer, chance)
            if [fold(word) for word in changed] != [fold(word) for word in words]:
                tried[name] += 1
                false[name] += is_reused(words, answer, changed)
    for at, (words, answer) in enumerate(zip(parts, answers, strict=True)):
        tried["another"] += 1
        false["another"] += is_reused(words, answer, parts[(at + 1) % len(parts)])
    others = sorted(alike(words, parts[(at + 1) % len(parts)]) for at, words in enumerate(parts))
    found = {"tried": tried, "reused": false, "another_alike_19_of_20": others[-len(others) // 20]}
    report(f"{NAME}_false", ratio=sum(false.values()) / sum(tried.values()), goal=0.0, better="lower", detail=found)
    longest = [word for words in parts for word in words][:12_000]
    began = time.perf_counter()
    text_of(longest).draw(QUESTION)
    drawn_s = time.perf_counter() - began
    began = time.perf_counter()
    for word in longest:
        fold(word)
    report(
        f"{NAME}_time",
        ratio=drawn_s / (time.perf_counter() - began),
        goal=20.0,
        better="lower",
        detail={"ms": drawn_s * 1e3},
    )


if __name__ == "__main__":
    corpus = Path(os.environ.get("PAGEMESH_CORPUS", "../shared/corpus"))
    if corpus.is_dir():
        measure(corpus)
    else:
        skip(NAME, f"there is no corpus at {corpus}; set PAGEMESH_CORPUS")
