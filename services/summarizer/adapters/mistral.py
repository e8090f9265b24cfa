"""Mistral's chat API (https://docs.mistral.ai/api, POST /v1/chat/completions).

Not through its SDK, which builds a class of pydantic for each event of a stream: milliseconds of the service's only
event loop for each word that is written (`bench/bench_mesh_overhead.py`)."""

import functools
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from importlib import resources
from typing import Any

from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from pydantic import SecretStr

from services.summarizer.adapters.chat import ChatProvider, Piece, new_fence
from services.summarizer.adapters.provider_http import ProviderHttp, translated
from services.summarizer.domain import prompt_forms
from services.summarizer.domain.fields_values import ChatPrompt
from services.summarizer.domain.ports import Abilities
from services.summarizer.domain.values import TokenCount

MODELS = dict.fromkeys(
    (
        "mistral-small-latest",
        "mistral-medium-latest",
        "mistral-large-latest",
        "ministral-8b-latest",
        "open-mistral-nemo",
    ),
    # The smallest context among them. The output is bounded by what is asked for, long before its limit.
    Abilities(context_tokens=128_000, max_output_tokens=16_000, writes=True, bills_unanswered=True),
)
"""Models whose tokens can be counted here (the Tekken tokenizer) and that have a price in the ledger's book."""

_NAME = "mistral"
_PATH = "/v1/chat/completions"
_TOKENIZER = "tekken_240911.json"


class MistralProvider(ChatProvider):
    """Chat models with structured output. `count_text` is what `tekken_counter()` gives, `now_s` Unix time for
    Retry-After dates."""

    def __init__(
        self,
        *,
        api_key: SecretStr,
        url: str,
        count_text: Callable[[str], int],
        timeout_s: float = 60.0,
        now_s: Callable[[], float] = time.time,
        new_fence: Callable[[], str] = new_fence,
    ) -> None:
        super().__init__(name=_NAME, models=MODELS, count_text=count_text, timeout_s=timeout_s, new_fence=new_fence)
        self._now_s = now_s
        self._api = ProviderHttp(self._http, url=url, api_key=api_key)

    async def _ask(self, prompt: ChatPrompt) -> Piece:
        answer = await self._api.post(_PATH, self._request(prompt))
        choice = _first(answer.get("choices"))
        usage = _tokens(answer.get("usage"))
        if choice is None:
            return Piece("", usage=usage, has_choice=False)
        return Piece(_text_of(choice.get("message")), choice.get("finish_reason"), usage)

    async def _pieces(self, prompt: ChatPrompt) -> AsyncGenerator[Piece, None]:
        async with aclosing(self._api.events(_PATH, self._request(prompt) | {"stream": True})) as events:
            async for event in events:
                choice = _first(event.get("choices"))
                usage = _tokens(event.get("usage"))
                if choice is None:
                    yield Piece("", usage=usage)
                else:
                    yield Piece(_text_of(choice.get("delta")), choice.get("finish_reason"), usage)

    def _request(self, prompt: ChatPrompt) -> dict[str, Any]:
        return {
            "model": prompt.model,
            "messages": self._messages(prompt),
            "max_tokens": self._most_output_tokens(prompt),
            "temperature": 0.0,
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": prompt_forms.name_of(prompt),
                    "schema": dict(prompt_forms.answer_schema(prompt)),
                    "strict": True,
                },
            },
        }

    def _translated(self) -> AbstractContextManager[None]:
        return translated(_NAME, timeout_s=self._timeout_s, now_s=self._now_s)


@functools.cache
def tekken_counter() -> Callable[[str], int]:
    """Counts the tokens of a text. Takes about a second and 60 MB the first time: call it in a thread."""
    data = resources.files("mistral_common") / "data" / _TOKENIZER
    with resources.as_file(data) as path:
        tokenizer = Tekkenizer.from_file(path)
    return lambda text: len(tokenizer.encode(text, bos=False, eos=False))


def _first(choices: object) -> dict[str, Any] | None:
    """The first choice; None where there is none. Raises ValueError for anything else."""
    if not choices and isinstance(choices, list | None):
        return None
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise ValueError("choices are not in the form of the API")
    return choices[0]


def _tokens(usage: object) -> TokenCount | None:
    if not isinstance(usage, dict):
        return None
    sent, received = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return TokenCount(sent, received) if isinstance(sent, int) and isinstance(received, int) else None


def _text_of(message: object) -> str:
    """Text of a message, whose content is a string or a list of pieces, of which only text counts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        texts = [piece.get("text") for piece in content if isinstance(piece, dict) and piece.get("type") == "text"]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""
