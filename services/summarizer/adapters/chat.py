"""What all providers with a chat API have in common: counting before a call, reading the answer, counting after it."""

import asyncio
import functools
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import httpx2

from services.runtime.errors import NotFound
from services.summarizer.adapters.bounded_http import bounded_client
from services.summarizer.adapters.provider_faults import cut_off, unreadable
from services.summarizer.domain import prompt_forms, prompts
from services.summarizer.domain.answers import MAX_ANSWER_CHARS, UnreadableAnswer
from services.summarizer.domain.fields_values import AnyPrompt, ChatPrompt, FieldsPrompt, chat_prompt
from services.summarizer.domain.ports import Abilities
from services.summarizer.domain.prose_stream import ProseStream
from services.summarizer.domain.reading import EMPTY_CHUNK
from services.summarizer.domain.values import Answer, Prompt, Stage, TokenCount

_FENCE_BYTES = 8
# Upper bounds in tokens: no token is shorter than a character of these.
_FENCE_TOKENS = 2 * _FENCE_BYTES
_FENCES_IN_FRAME = 5
_MARKER_TOKENS = _FENCE_TOKENS + len("[ page 1000000]\n\n")
_TEMPLATE_TOKENS = 48
"""What an API puts around two messages and a schema: control tokens and its own words about the schema."""
# What a fence, a line that begins a page and the template really have, measured with Mistral's tokenizer.
_CALL_EXCESS = _FENCES_IN_FRAME * (_FENCE_TOKENS - 14) + _TEMPLATE_TOKENS - 12
_PAGE_EXCESS = _MARKER_TOKENS - 23
_MAX_RESPONSE_BYTES = 16 * 2**20
_MAX_CONNECTIONS = 100
_FINISHED = "stop"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of what a provider said, or all of it; None for what it has not told yet."""

    text: str
    finish_reason: str | None = None
    usage: TokenCount | None = None
    has_choice: bool = True


def new_fence() -> str:
    """A word that nobody can guess."""
    return secrets.token_hex(_FENCE_BYTES)


class ChatProvider(ABC):
    """Chat models that answer in the form of a JSON Schema. Nothing is retried here; `timeout_s` bounds a call as a
    whole. `count_text` counts a text's tokens, exactly or from above."""

    version = prompts.VERSION

    def __init__(
        self,
        *,
        name: str,
        models: Mapping[str, Abilities],
        count_text: Callable[[str], int],
        timeout_s: float,
        new_fence: Callable[[], str],
    ) -> None:
        self.name = name
        self._models = {
            name: replace(abilities, call_excess=_CALL_EXCESS, page_excess=_PAGE_EXCESS)
            for name, abilities in models.items()
        }
        self._timeout_s = timeout_s
        self._new_fence = new_fence
        self._count_text = count_text
        self._frame_tokens = functools.lru_cache(maxsize=256)(self._count_frame)
        self._http: httpx2.AsyncClient = bounded_client(
            max_response_bytes=_MAX_RESPONSE_BYTES, timeout_s=timeout_s, max_connections=_MAX_CONNECTIONS
        )

    @abstractmethod
    async def _ask(self, prompt: ChatPrompt) -> Piece:
        """One call and all of its answer. What the library raises is translated outside."""

    @abstractmethod
    def _pieces(self, prompt: ChatPrompt) -> AsyncGenerator[Piece, None]:
        """The same as it is written. Closing the generator ends the call."""

    @abstractmethod
    def _translated(self) -> AbstractContextManager[None]:
        """Turns what the library raises into what the port says."""

    def models(self) -> tuple[str, ...]:
        """Names as the provider knows them."""
        return tuple(self._models)

    def abilities(self, model: str) -> Abilities:
        """NotFound MODEL_UNKNOWN for a model that is not in the list."""
        if model not in self._models:
            raise NotFound("MODEL_UNKNOWN", f"There is no model {model[:100]!r} of {self.name} here.")
        return self._models[model]

    def count(self, prompt: AnyPrompt) -> TokenCount:
        """An upper bound: of the text as `count_text` counts, and of what the API adds."""
        prompt = chat_prompt(prompt)
        if prompt.chunk is not None:
            material = self._count_text(prompts.speakable(prompt.chunk.text)) + _MARKER_TOKENS * len(prompt.chunk.spans)
        else:
            material = self._count_text(prompts.numbered(prompt.claims))
        frame = self._frame_tokens(_without_material(prompt))
        return TokenCount(frame + material, self._most_output_tokens(prompt))

    async def complete(self, prompt: AnyPrompt) -> Answer:
        """One call. Raises what the port says, with reasons PROVIDER_…"""
        prompt = chat_prompt(prompt)
        with self._translated():
            async with asyncio.timeout(self._timeout_s):
                said = await self._ask(prompt)
        tokens = self._used(prompt, said.usage)
        if not said.has_choice:
            raise unreadable(self.name, "it holds no choice", tokens)
        return self._answer(prompt, said.text, said.finish_reason, tokens)

    async def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
        """The same by server-sent events: the sentences' texts in pieces, then the answer."""
        prompt = chat_prompt(prompt)
        prose, content, size = ProseStream(), list[str](), 0
        finish_reason: str | None = None
        usage: TokenCount | None = None
        async with aclosing(self._timed(prompt)) as pieces:
            async for piece in pieces:
                usage = piece.usage or usage
                finish_reason = piece.finish_reason or finish_reason
                size += len(piece.text)
                if size > MAX_ANSWER_CHARS:
                    raise unreadable(self.name, "it is too long", self._used(prompt, usage) if usage else None)
                content.append(piece.text)
                if text := prose.feed(piece.text):
                    yield text
        if finish_reason is None:
            raise cut_off(self.name)
        yield self._answer(prompt, "".join(content), finish_reason, self._used(prompt, usage))

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _timed(self, prompt: ChatPrompt) -> AsyncGenerator[Piece, None]:
        """The pieces. The time-out stands around each wait, not around the consumer's work."""
        ends_at = asyncio.get_running_loop().time() + self._timeout_s
        async with aclosing(self._pieces(prompt)) as pieces:
            while True:
                with self._translated():
                    async with asyncio.timeout_at(ends_at):
                        piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece

    def _messages(self, prompt: ChatPrompt) -> list[dict[str, str]]:
        messages = prompt_forms.render(prompt, self._new_fence)
        return [{"role": "system", "content": messages.system}, {"role": "user", "content": messages.user}]

    def _most_output_tokens(self, prompt: ChatPrompt) -> int:
        return min(prompt_forms.most_output_tokens(prompt), self.abilities(prompt.model).max_output_tokens)

    def _count_frame(self, empty: ChatPrompt) -> int:
        """Everything but the material."""
        # One letter stands for each fence, whose own tokens are added at their most.
        frame = prompt_forms.render(empty, lambda: "x")
        schema = json.dumps(prompt_forms.answer_schema(empty))
        counted = sum(self._count_text(text) for text in (frame.system, frame.user, schema))
        fences = _FENCES_IN_FRAME + (1 + len(empty.complaints) if isinstance(empty, FieldsPrompt) else 0)
        return counted + fences * _FENCE_TOKENS + _TEMPLATE_TOKENS

    def _used(self, prompt: ChatPrompt, reported: TokenCount | None) -> TokenCount:
        """Usage as reported where it can be true, else the most that was counted: unknown is never free."""
        limits = self.abilities(prompt.model)
        plausible = reported is not None and 0 < reported.input_tokens <= limits.context_tokens
        if reported is None or not plausible or not 0 <= reported.output_tokens <= limits.max_output_tokens:
            return self.count(prompt)
        return reported

    def _answer(self, prompt: ChatPrompt, content: str, finish_reason: str | None, tokens: TokenCount) -> Answer:
        if finish_reason != _FINISHED:
            raise unreadable(self.name, "it was cut off at its limit", tokens)
        try:
            return prompt_forms.read(prompt, content, tokens)
        except UnreadableAnswer as exc:
            raise unreadable(self.name, str(exc), tokens) from exc


def _without_material(prompt: ChatPrompt) -> ChatPrompt:
    """The prompt with nothing of the document in it: the same for all parts of a request."""
    if isinstance(prompt, FieldsPrompt):
        return replace(prompt, chunk=EMPTY_CHUNK)
    chunk = None if prompt.stage is Stage.REDUCE else EMPTY_CHUNK
    return Prompt(prompt.stage, prompt.options, "", prompt.max_sentences, chunk=chunk, question=prompt.question)
