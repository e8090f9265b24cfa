"""A model that writes as it is asked to: sentences and quotes of many lengths, taken from the material.

What it says depends on the material alone, so that the same call is answered and charged the same. It knows the words
of the prompt and nothing of what the service expects of it.
"""

import hashlib
import random
from typing import Any

from tests.fakes.mistral_server import material_of


def write(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request: for MistralServer(says=write)."""
    asked = body["messages"][-1]["content"]
    fence, material, most = material_of(asked)
    chance = random.Random(hashlib.sha256(material.replace(fence, "").encode()).digest())
    count = max(1, most - chance.choices((0, 1, 2), (80, 14, 6))[0])
    if "`sources` are" in body["messages"][0]["content"]:
        lines = [line.partition(". ") for line in material.splitlines() if line]
        picked = sorted(chance.sample(range(len(lines)), min(count, len(lines))))
        return {"sentences": [_joined(chance, lines, number) for number in picked]}
    pages = [part.partition("]\n") for part in material.split(f"[{fence} page ")[1:]]
    worded = [(int(number), text.split()) for number, _, text in pages if text.split()]
    count = min(count, max(1, sum(len(words) for _, words in worded) // 15))
    return {"sentences": [_sentence(chance, *chance.choice(worded)) for _ in range(count)]}


def _sentence(chance: random.Random, page: int, words: list[str]) -> dict[str, Any]:
    quotes = [{"quote": _run(chance, words, 5, 30), "page": page} for _ in range(chance.choice((1, 2)))]
    return {"text": _run(chance, words, 12, 40), "quotes": quotes}


def _joined(chance: random.Random, lines: list[tuple[str, str, str]], number: int) -> dict[str, Any]:
    sources = [number + 1, *chance.sample(range(1, len(lines) + 1), min(len(lines), chance.choice((0, 1, 2))))]
    return {"text": _run(chance, lines[number][2].split(), 12, 40), "sources": sources}


def _run(chance: random.Random, words: list[str], least: int, most: int) -> str:
    length = min(len(words), chance.randint(least, most))
    start = chance.randint(0, len(words) - length)
    return " ".join(words[start : start + length])
