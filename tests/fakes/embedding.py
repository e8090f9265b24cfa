"""Vectors as a provider would make them: those of texts that share words are near."""

import hashlib
import re
from typing import Any

DIMENSIONS = 64
ALIKE = {"automobile": "car", "automobiles": "car", "cars": "car"}


def embedded(behaviour: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer of /v1/embeddings without its usage; by `fewer`, `ragged` and `zero` one that is of no use."""
    vectors = [vector_of(text) for text in body["input"]]
    if behaviour == "ragged":
        vectors[0] = [1.0]
    elif behaviour == "zero":
        vectors[0] = [0.0] * DIMENSIONS
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"object": "list", "model": body["model"], "data": data[behaviour == "fewer" :]}


def vector_of(text: str) -> list[float]:
    """Texts that share words are near; words of ALIKE count as the same."""
    numbers = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(ALIKE.get(word, word).encode()).digest()
        numbers[int.from_bytes(digest[:2], "big") % DIMENSIONS] += 1.0
    return numbers if any(numbers) else [1.0] * DIMENSIONS
