"""Mistral's chat API, through its SDK."""

import functools
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import httpx2
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from mistralai.client import Mistral
from mistralai.client.errors import MistralError, NoResponseError, ResponseValidationError
from mistralai.client.models import CompletionEvent, TextChunk, UsageInfo
from mistralai.client.utils.eventstreaming import EventStreamAsync
from mistralai.client.utils.logger import NoOpLogger
from pydantic import SecretStr, ValidationError

from services.summarizer.adapters.bounded_http import TooLong
from services.summarizer.adapters.chat import ChatProvider, Piece, new_fence
from services.summarizer.adapters.provider_faults import cut_off, no_connection, refused, timed_out, unreadable
from services.summarizer.domain import prompt_forms
from services.summarizer.domain.fields_values import AnyPrompt
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
        self._sdk = Mistral(
            api_key=api_key.get_secret_value(),
            server_url=url.rstrip("/"),
            async_client=self._http,
            timeout_ms=round(timeout_s * 1000),
            # Its debug log, which an environment variable turns on, and its spans repeat messages and answers.
            debug_logger=NoOpLogger(),
        )
        self._sdk.sdk_configuration.__dict__["telemetry"] = False

    async def _ask(self, prompt: AnyPrompt) -> Piece:
        response = await self._sdk.chat.complete_async(**self._request(prompt))
        choice = response.choices[0] if response.choices else None
        if choice is None or choice.message is None:
            return Piece("", usage=_tokens(response.usage), has_choice=False)
        return Piece(_text_of(choice.message.content), choice.finish_reason, _tokens(response.usage))

    async def _pieces(self, prompt: AnyPrompt) -> AsyncGenerator[Piece, None]:
        stream: EventStreamAsync[CompletionEvent] = await self._sdk.chat.stream_async(**self._request(prompt))
        async with stream:
            async for event in stream:
                usage = _tokens(event.data.usage)
                choice = next(iter(event.data.choices), None)
                if choice is None:
                    yield Piece("", usage=usage)
                else:
                    yield Piece(_text_of(choice.delta.content), choice.finish_reason or None, usage)

    def _request(self, prompt: AnyPrompt) -> dict[str, Any]:
        return {
            "model": prompt.model,
            "messages": self._messages(prompt),
            "max_tokens": self._most_output_tokens(prompt),
            "temperature": 0.0,
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": prompt_forms.name_of(prompt),
                    "schema_definition": dict(prompt_forms.answer_schema(prompt)),
                    "strict": True,
                },
            },
        }

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as exc:
            raise no_connection(_NAME) from exc
        except (TimeoutError, httpx2.TimeoutException) as exc:
            raise timed_out(_NAME, self._timeout_s) from exc
        except TooLong as exc:
            raise unreadable(_NAME, "it is too long", None) from exc
        except (ResponseValidationError, ValidationError, ValueError) as exc:
            # json.JSONDecodeError and UnicodeDecodeError are ValueErrors.
            raise unreadable(_NAME, "it is not in the form of the API", None) from exc
        except MistralError as exc:
            if 200 <= exc.status_code < 300:
                raise unreadable(_NAME, "it is not in the form of the API", None) from exc
            raise refused(_NAME, exc.status_code, exc.headers, now_s=self._now_s) from exc
        except (httpx2.RequestError, NoResponseError) as exc:
            raise cut_off(_NAME) from exc


@functools.cache
def tekken_counter() -> Callable[[str], int]:
    """Counts the tokens of a text. Takes about a second and 60 MB the first time: call it in a thread."""
    data = resources.files("mistral_common") / "data" / _TOKENIZER
    with resources.as_file(data) as path:
        tokenizer = Tekkenizer.from_file(path)
    return lambda text: len(tokenizer.encode(text, bos=False, eos=False))


def _tokens(usage: UsageInfo | None) -> TokenCount | None:
    return None if usage is None else TokenCount(usage.prompt_tokens or 0, usage.completion_tokens or 0)


def _text_of(content: object) -> str:
    """Text of a message, which is a string or a list of pieces, of which only text counts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(piece.text for piece in content if isinstance(piece, TextChunk))
    return ""
