"""Embeddings by the API that OpenAI's has become the form of: Mistral, OpenAI, or a server of one's own."""

import asyncio
import json
import math
import struct
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from pydantic import SecretStr

from services.runtime.errors import NotFound
from services.summarizer.adapters.bounded_http import bounded_client
from services.summarizer.adapters.provider_faults import unreadable
from services.summarizer.adapters.provider_http import ProviderHttp, translated
from services.summarizer.domain.fields_values import AnyPrompt
from services.summarizer.domain.ports import Abilities
from services.summarizer.domain.values import Answer, Prompt, TokenCount

MAX_DIMENSIONS = 3_072
"""Of `text-embedding-3-large`, the largest that is known."""
_MAX_TOKENS = 20_000
_TOKENS_AROUND_TEXT = 8
"""Begin, end and whatever else a template adds to a text."""
_MAX_RESPONSE_BYTES = 8 * 2**20
"""32 vectors of 3,072 numbers with 25 letters each are 2.4 MB."""
_CONNECTIONS = 10


class EmbeddingsProvider:
    """Implements the port `Provider` for prompts with texts, with one model. `now_s`: Unix time, for Retry-After."""

    version = "1"

    def __init__(
        self,
        *,
        name: str,
        model: str,
        url: str,
        api_key: SecretStr,
        timeout_s: float = 30.0,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """`/embeddings` is added to `url`."""
        self.name = name
        self._model = model
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._http = bounded_client(
            max_response_bytes=_MAX_RESPONSE_BYTES, timeout_s=timeout_s, max_connections=_CONNECTIONS
        )
        self._api = ProviderHttp(self._http, url=url, api_key=api_key)

    async def close(self) -> None:
        """Ends its connections."""
        await self._http.aclose()

    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self._model,)

    def abilities(self, model: str) -> Abilities:
        """It writes nothing, and somebody sends a bill."""
        if model != self._model:
            raise NotFound("MODEL_UNKNOWN", f"{self.name} makes vectors by {self._model} alone.")
        return Abilities(_MAX_TOKENS, 0, writes=False, bills_unanswered=True)

    def count(self, prompt: AnyPrompt) -> TokenCount:
        """From above: no tokenizer makes more tokens of a text than it has bytes."""
        return TokenCount(sum(len(text.encode()) + _TOKENS_AROUND_TEXT for text in _texts(prompt)), 0)

    async def complete(self, prompt: AnyPrompt) -> Answer:
        """A vector for each text."""
        self.abilities(prompt.model)
        # `float` is what both APIs do by themselves and take as an answer to the question.
        body = {"model": prompt.model, "input": list(_texts(prompt)), "encoding_format": "float"}
        with translated(self.name, timeout_s=self._timeout_s, now_s=self._now_s):
            async with asyncio.timeout(self._timeout_s):
                content = await self._api.post_unread("/embeddings", body)
        # Thousands of numbers would hold other calls up.
        return await asyncio.to_thread(self._read, prompt, content)

    def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
        """Nothing is written."""
        raise NotImplementedError("vectors do not come piece by piece")

    def _read(self, prompt: AnyPrompt, content: bytes) -> Answer:
        try:
            told = json.loads(content)
            used = _used(told.get("usage"), self.count(prompt))
        except (ValueError, AttributeError, RecursionError) as exc:
            raise unreadable(self.name, "it is not in the form of the API", None) from exc
        try:
            return Answer((), used, vectors=_vectors(told["data"], len(_texts(prompt))))
        except (ValueError, TypeError, KeyError, OverflowError, struct.error) as exc:
            raise unreadable(self.name, "it does not hold a vector for each text", used) from exc


def _texts(prompt: AnyPrompt) -> tuple[str, ...]:
    assert isinstance(prompt, Prompt)
    return prompt.texts


def _used(usage: Any, most: TokenCount) -> TokenCount:
    """Usage as reported where it can be true, else the most that was counted: unknown is never free."""
    told = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return TokenCount(told, 0) if isinstance(told, int) and 0 < told <= most.input_tokens else most


def _vectors(data: list[dict[str, Any]], count: int) -> tuple[bytes, ...]:
    """In the order of the texts, each of length 1, which half precision serves best. Raises ValueError and others where
    it is not what was asked for."""
    rows = {row["index"]: row["embedding"] for row in data}
    if len(data) != count or set(rows) != set(range(count)):
        raise ValueError("not one vector for each text")
    dimensions = len(rows[0])
    if not 0 < dimensions <= MAX_DIMENSIONS or any(len(row) != dimensions for row in rows.values()):
        raise ValueError("vectors of no use")
    return tuple(_packed(rows[index]) for index in range(count))


def _packed(numbers: list[float]) -> bytes:
    length = math.hypot(*numbers)
    if not 0 < length < math.inf:
        raise ValueError("a vector without a direction")
    return struct.pack(f"<{len(numbers)}e", *(number / length for number in numbers))
