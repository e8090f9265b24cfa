"""A model that writes as it is asked to: sentences and quotes of many lengths, taken from the material, and the values
of made forms (made_forms.py).

What it says depends on the material and its mood alone, so that the same call is answered and charged the same. It
knows the words of the prompt and nothing of what the service expects of it.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes.made_forms import Entry
from tests.fakes.mistral_server import fenced, material_of

_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_PAIR = re.compile(r"..?")
_END = re.compile(r"[a-z\u00df-\u00ff]{2}[.!?](?:\s|$)|[\u3002\uff01\uff1f]")
_SENTENCES_OF_ANSWER = (0, 1, 2, 3, 4, 5)
_HOW_OFTEN = (10, 15, 25, 25, 15, 10)
_LEFT_OUT, _UNLABELLED = 0.05, 0.3
"""Shares of the values that the model overlooks, and that it quotes without their labels."""


@dataclass(frozen=True)
class Writer:
    """For MistralServer(says=Writer(mood)). In another mood it says something else about the same. `entries` are what
    forms hold."""

    mood: int = 0
    entries: Sequence[Entry] = ()

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        system, asked = (message["content"] for message in body["messages"])
        if "You find values" in system:
            return self._fields(asked)
        if "You answer questions" in system:
            return self._answer(asked)
        return self._summary(body)

    def _chance(self, fence: str, material: str) -> random.Random:
        said = material.replace(fence, "") + (str(self.mood) if self.mood else "")
        return random.Random(hashlib.sha256(said.encode()).digest())

    def _fields(self, asked: str) -> dict[str, Any]:
        fence, material = fenced(asked)
        wanted, most = asked.partition("BEGIN ")[0], int(re.search(r"at most (\d+):", asked)[1])  # type: ignore[index]
        chance, fields, rows = self._chance(fence, material), list[dict[str, Any]](), dict[str, int]()
        for part in material.split(f"[{fence} page ")[1:]:
            page, _, text = part.partition("]\n")
            for entry in self.entries:
                asks = f'"{entry.pointer.split("/")[1]}":' in wanted
                if not asks or entry.line not in text or chance.random() < _LEFT_OUT:
                    continue
                row = rows.setdefault(entry.line, len(rows)) if "*" in entry.pointer else 0
                quote = entry.value if chance.random() < _UNLABELLED else " ".join(entry.line.split())
                pointer = entry.pointer.replace("*", str(row))
                fields.append({"pointer": pointer, "value": entry.value, "quote": quote, "page": int(page)})
        return {"fields": fields[:most]}

    def _answer(self, asked: str) -> dict[str, Any]:
        fence, material, most = material_of(asked)
        chance = self._chance(fence, material + asked.partition("\n")[0])
        count = min(most, chance.choices(_SENTENCES_OF_ANSWER, _HOW_OFTEN)[0])
        worded = _worded(fence, material)
        return {"sentences": [_sentence(chance, *chance.choice(worded)) for _ in range(count)]}

    def _summary(self, body: dict[str, Any]) -> dict[str, Any]:
        fence, material, most = material_of(body["messages"][-1]["content"])
        return _written(body, self._chance(fence, material), fence, material, most)


def write(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request: for MistralServer(says=write)."""
    return Writer()(body)


def _worded(fence: str, material: str) -> list[tuple[int, list[str]]]:
    pages = [part.partition("]\n") for part in material.split(f"[{fence} page ")[1:]]
    return [(int(number), _spelt(text)) for number, _, text in pages if text.split()]


def _spelt(text: str) -> list[str]:
    """Its words; Chinese and Japanese in pieces of two letters, which their words have on the average."""
    return [piece for word in text.split() for piece in (_PAIR.findall(word) if _CJK.search(word) else (word,))]


def _written(body: dict[str, Any], chance: random.Random, fence: str, material: str, most: int) -> dict[str, Any]:
    count = max(1, most - chance.choices((0, 1, 2), (80, 14, 6))[0])
    if "`sources` are" in body["messages"][0]["content"]:
        lines = [line.partition(". ") for line in material.splitlines() if line]
        picked = sorted(chance.sample(range(len(lines)), min(count, len(lines))))
        return {"sentences": [_joined(chance, lines, number) for number in picked]}
    worded = _worded(fence, material)
    # A text says no more than it has sentences, or than its words would make: how many is the model's whim.
    made = sum(len(words) for _, words in worded) // chance.randint(12, 28)
    count = min(count, max(1, made, len(_END.findall(material))))
    return {"sentences": [_sentence(chance, *chance.choice(worded)) for _ in range(count)]}


def _sentence(chance: random.Random, page: int, words: list[str]) -> dict[str, Any]:
    quotes = [{"quote": _run(chance, words, 5, 30), "page": page} for _ in range(chance.choice((1, 2)))]
    return {"text": _run(chance, words, 12, 40), "quotes": quotes}


def _joined(chance: random.Random, lines: list[tuple[str, str, str]], number: int) -> dict[str, Any]:
    sources = [number + 1, *chance.sample(range(1, len(lines) + 1), min(len(lines), chance.choice((0, 1, 2))))]
    return {"text": _run(chance, _spelt(lines[number][2]), 12, 40), "sources": sources}


def _run(chance: random.Random, words: list[str], least: int, most: int) -> str:
    length = min(len(words), chance.randint(least, most))
    start = chance.randint(0, len(words) - length)
    run = words[start : start + length]
    return "".join(run) if sum(bool(_CJK.search(word)) for word in run) * 2 > length else " ".join(run)
