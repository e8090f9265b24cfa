"""Mistral's chat API, through its SDK."""

import asyncio
import functools
import json
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from importlib import resources
from types import TracebackType
from typing import Any

import httpx2
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from mistralai.client import Mistral
from mistralai.client.errors import MistralError, NoResponseError, ResponseValidationError
from mistralai.client.models import CompletionEvent, TextChunk, UsageInfo
from mistralai.client.utils.eventstreaming import EventStreamAsync
from mistralai.client.utils.logger import NoOpLogger
from pydantic import SecretStr, ValidationError

from services.runtime.errors import NotFound
from services.summarizer.adapters.bounded_http import TooLong, bounded_client
from services.summarizer.adapters.provider_faults import cut_off, no_connection, refused, timed_out, unreadable
from services.summarizer.domain import prompts
from services.summarizer.domain.answers import MAX_ANSWER_CHARS, UnreadableAnswer, read_answer
from services.summarizer.domain.ports import Abilities
from services.summarizer.domain.prose_stream import ProseStream
from services.summarizer.domain.values import Answer, Chunk, Options, Prompt, Stage, TokenCount

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
_FENCE_BYTES = 8
# Upper bounds in tokens: no token is shorter than a character of these.
_FENCE_TOKENS = 2 * _FENCE_BYTES
_FENCES_IN_FRAME = 5
_MARKER_TOKENS = _FENCE_TOKENS + len("[ page 1000000]\n\n")
_TEMPLATE_TOKENS = 48
"""What the API puts around two messages and a schema: control tokens and its own words about the schema."""
_MAX_RESPONSE_BYTES = 16 * 2**20
_MAX_CONNECTIONS = 100
_FINISHED = "stop"


class MistralProvider:
    """Chat models with structured output. Nothing is retried here; `timeout_s` bounds a call as a whole.

    `count_text` is what `tekken_counter()` gives, `now_s` Unix time for Retry-After dates.
    """

    name = _NAME
    version = prompts.VERSION

    def __init__(
        self,
        *,
        api_key: SecretStr,
        url: str,
        count_text: Callable[[str], int],
        timeout_s: float = 60.0,
        now_s: Callable[[], float] = time.time,
        new_fence: Callable[[], str] = lambda: secrets.token_hex(_FENCE_BYTES),
    ) -> None:
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._new_fence = new_fence
        self._count_text = count_text
        self._frame_tokens = functools.lru_cache(maxsize=256)(self._count_frame)
        self._http = bounded_client(
            max_response_bytes=_MAX_RESPONSE_BYTES, timeout_s=timeout_s, max_connections=_MAX_CONNECTIONS
        )
        self._sdk = Mistral(
            api_key=api_key.get_secret_value(),
            server_url=url.rstrip("/"),
            async_client=self._http,
            timeout_ms=round(timeout_s * 1000),
            # Its debug log, which an environment variable turns on, and its spans repeat messages and answers.
            debug_logger=NoOpLogger(),
        )
        self._sdk.sdk_configuration.__dict__["telemetry"] = False

    def models(self) -> tuple[str, ...]:
        """Names as Mistral knows them."""
        return tuple(MODELS)

    def abilities(self, model: str) -> Abilities:
        """NotFound MODEL_UNKNOWN for a model that is not in the list."""
        if model not in MODELS:
            raise NotFound("MODEL_UNKNOWN", f"There is no Mistral model {model[:100]!r} here.")
        return MODELS[model]

    def count(self, prompt: Prompt) -> TokenCount:
        """An upper bound: the tokenizer is the model's, what the API adds is estimated from above."""
        if prompt.chunk is not None:
            material = self._count_text(prompt.chunk.text) + _MARKER_TOKENS * len(prompt.chunk.spans)
        else:
            material = self._count_text(prompts.numbered(prompt.claims))
        frame = self._frame_tokens(prompt.stage, prompt.options, prompt.max_sentences)
        return TokenCount(frame + material, self._most_output_tokens(prompt))

    async def complete(self, prompt: Prompt) -> Answer:
        """One call to /v1/chat/completions. Raises what the port says, with reasons PROVIDER_…"""
        request = self._request(prompt)
        with self._translated():
            async with asyncio.timeout(self._timeout_s):
                response = await self._sdk.chat.complete_async(**request)
        tokens = self._used(prompt, response.usage)
        choice = response.choices[0] if response.choices else None
        if choice is None or choice.message is None:
            raise unreadable(_NAME, "it holds no choice", tokens)
        return _answer(prompt, _text_of(choice.message.content), choice.finish_reason, tokens)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str | Answer, None]:
        """The same by server-sent events: the sentences' texts in pieces, then the answer."""
        prose, content, size = ProseStream(), list[str](), 0
        finish_reason: str | None = None
        usage: UsageInfo | None = None
        async with aclosing(self._events(prompt)) as events:
            async for event in events:
                usage = event.data.usage or usage
                for choice in event.data.choices[:1]:
                    piece = _text_of(choice.delta.content)
                    finish_reason = choice.finish_reason or finish_reason
                    size += len(piece)
                    if size > MAX_ANSWER_CHARS:
                        raise unreadable(_NAME, "it is too long", self._used(prompt, usage) if usage else None)
                    content.append(piece)
                    if text := prose.feed(piece):
                        yield text
        if finish_reason is None:
            raise cut_off(_NAME)
        yield _answer(prompt, "".join(content), finish_reason, self._used(prompt, usage))

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "MistralProvider":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _events(self, prompt: Prompt) -> AsyncGenerator[CompletionEvent, None]:
        """The events of the stream. The time-out stands around each wait, not around the consumer's work."""
        request = self._request(prompt)
        ends_at = asyncio.get_running_loop().time() + self._timeout_s
        with self._translated():
            async with asyncio.timeout_at(ends_at):
                stream: EventStreamAsync[CompletionEvent] = await self._sdk.chat.stream_async(**request)
        async with stream:
            while True:
                with self._translated():
                    async with asyncio.timeout_at(ends_at):
                        event = await anext(stream, None)
                if event is None:
                    return
                yield event

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        self.abilities(prompt.model)
        messages = prompts.render(prompt, self._new_fence)
        return {
            "model": prompt.model,
            "messages": [
                {"role": "system", "content": messages.system},
                {"role": "user", "content": messages.user},
            ],
            "max_tokens": self._most_output_tokens(prompt),
            "temperature": 0.0,
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "summary",
                    "schema_definition": dict(prompts.answer_schema(prompt.stage)),
                    "strict": True,
                },
            },
        }

    def _most_output_tokens(self, prompt: Prompt) -> int:
        return min(prompts.most_output_tokens(prompt), self.abilities(prompt.model).max_output_tokens)

    def _count_frame(self, stage: Stage, options: Options, max_sentences: int) -> int:
        """Everything but the material."""
        empty = Chunk(0, "", ()) if stage is Stage.MAP else None
        # One letter stands for each fence, whose own tokens are added at their most.
        frame = prompts.render(Prompt(stage, options, "", max_sentences, chunk=empty), lambda: "x")
        schema = json.dumps(prompts.answer_schema(stage))
        counted = sum(self._count_text(text) for text in (frame.system, frame.user, schema))
        return counted + _FENCES_IN_FRAME * _FENCE_TOKENS + _TEMPLATE_TOKENS

    def _used(self, prompt: Prompt, usage: UsageInfo | None) -> TokenCount:
        """Usage as reported where it can be true, else the most that was counted: unknown is never free."""
        reported = TokenCount((usage and usage.prompt_tokens) or 0, (usage and usage.completion_tokens) or 0)
        limits = self.abilities(prompt.model)
        plausible = 0 < reported.input_tokens <= limits.context_tokens
        plausible = plausible and 0 <= reported.output_tokens <= limits.max_output_tokens
        return reported if plausible else self.count(prompt)

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


def _answer(prompt: Prompt, content: str, finish_reason: str | None, tokens: TokenCount) -> Answer:
    if finish_reason != _FINISHED:
        raise unreadable(_NAME, "it was cut off at its limit", tokens)
    try:
        return Answer(read_answer(prompt, content), tokens)
    except UnreadableAnswer as exc:
        raise unreadable(_NAME, str(exc), tokens) from exc


def _text_of(content: object) -> str:
    """Text of a message, which is a string or a list of pieces, of which only text counts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(piece.text for piece in content if isinstance(piece, TextChunk))
    return ""
