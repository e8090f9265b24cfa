"""Any chat API in the form of OpenAI's, through its SDK: OpenAI, Groq, Gemini, OpenRouter, or a server of one's own."""

import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx2
from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import SecretStr

from services.summarizer.adapters.bounded_http import TooLong
from services.summarizer.adapters.chat import ChatProvider, Piece, new_fence
from services.summarizer.adapters.model_registry import Endpoint
from services.summarizer.adapters.provider_faults import cut_off, no_connection, refused, timed_out, unreadable
from services.summarizer.domain import prompt_forms
from services.summarizer.domain.fields_values import ChatPrompt
from services.summarizer.domain.values import TokenCount

MARGIN = 1.5
"""What a text's count by Mistral's tokenizer is multiplied by for models whose own tokenizer cannot be had offline.

Their vocabularies are as large or larger, so that most texts have fewer tokens there; the margin is for the scripts and
the code in which they have more. A text never has more tokens than bytes."""

# Its debug log, which an environment variable turns on, repeats messages and answers.
logging.getLogger("openai").disabled = True


def counter_with_margin(count_text: Callable[[str], int]) -> Callable[[str], int]:
    """Counts from above for a tokenizer that is not known: MARGIN times `count_text`, at most the bytes of the text."""
    return lambda text: min(math.ceil(count_text(text) * MARGIN), len(text.encode("utf-8", "surrogatepass")))


class OpenAiCompatibleProvider(ChatProvider):
    """Chat models behind one endpoint. `count_text` counts from above, `now_s` is Unix time for Retry-After dates."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        api_key: SecretStr,
        count_text: Callable[[str], int],
        timeout_s: float = 60.0,
        now_s: Callable[[], float] = time.time,
        new_fence: Callable[[], str] = new_fence,
    ) -> None:
        models = {name: replace(model.abilities, counted_share=1 / MARGIN) for name, model in endpoint.models.items()}
        super().__init__(
            name=endpoint.name, models=models, count_text=count_text, timeout_s=timeout_s, new_fence=new_fence
        )
        self._endpoint = endpoint
        self._now_s = now_s
        self._sdk = AsyncOpenAI(
            api_key=api_key.get_secret_value(),
            base_url=endpoint.url,
            # What the environment says of an organisation is another program's.
            organization="",
            project="",
            http_client=self._http,
            timeout=timeout_s,
            max_retries=0,
        )

    async def _ask(self, prompt: ChatPrompt) -> Piece:
        response = await self._sdk.chat.completions.create(**self._request(prompt))
        if not isinstance(response, ChatCompletion):
            raise ValueError("the body is no JSON object")  # the SDK hands on what else it is
        choice = _first(response.choices)
        if choice is None or choice.message is None:
            return Piece("", usage=_tokens(response.usage), has_choice=False)
        return Piece(_text_of(choice.message.content), choice.finish_reason, _tokens(response.usage))

    async def _pieces(self, prompt: ChatPrompt) -> AsyncGenerator[Piece, None]:
        stream: AsyncStream[ChatCompletionChunk] = await self._sdk.chat.completions.create(
            **self._request(prompt), stream=True, stream_options={"include_usage": True}
        )
        async with stream:
            async for event in stream:
                usage = _tokens(event.usage)
                choice = _first(event.choices)
                if choice is None or choice.delta is None:
                    yield Piece("", usage=usage)
                else:
                    yield Piece(_text_of(choice.delta.content), choice.finish_reason, usage)

    def _request(self, prompt: ChatPrompt) -> dict[str, Any]:
        self.abilities(prompt.model)
        model = self._endpoint.models[prompt.model]
        form_of_answer = dict(prompt_forms.answer_schema(prompt))
        schema = {"name": prompt_forms.name_of(prompt), "schema": form_of_answer, "strict": True}
        # The prompt shows the form of the answer as well: enough for models that only promise to write JSON.
        form = {"type": "json_schema", "json_schema": schema} if model.takes_schema else {"type": "json_object"}
        request: dict[str, Any] = {
            "model": prompt.model,
            "messages": self._messages(prompt),
            self._endpoint.output_limit: self._most_output_tokens(prompt),
            "temperature": 0.0,
            "response_format": form,
        }
        if model.reasoning_effort:
            request["reasoning_effort"] = model.reasoning_effort
        return request

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except APIConnectionError as exc:
            raise self._fault(exc.__cause__ or exc) from exc
        except APIStatusError as exc:
            raise refused(self.name, exc.status_code, exc.response.headers, now_s=self._now_s) from exc
        except (APIError, TimeoutError, httpx2.HTTPError, TooLong, ValueError, TypeError, AttributeError) as exc:
            # The last two: the SDK builds its objects out of whatever came, without looking at it.
            raise self._fault(exc) from exc

    def _fault(self, error: BaseException) -> Exception:
        match error:
            case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.PoolTimeout() | httpx2.ProxyError():
                return no_connection(self.name)
            case TimeoutError() | httpx2.TimeoutException():
                return timed_out(self.name, self._timeout_s)
            case TooLong():
                return unreadable(self.name, "it is too long", None)
            case ValueError() | TypeError() | AttributeError():
                return unreadable(self.name, "it is not in the form of the API", None)
            case _:  # what broke off, and errors told in the middle of a stream
                return cut_off(self.name)


def _first(choices: object) -> Any:
    return choices[0] if isinstance(choices, list) and choices else None


def _tokens(usage: Any) -> TokenCount | None:
    sent, received = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    return TokenCount(sent, received) if isinstance(sent, int) and isinstance(received, int) else None


def _text_of(content: object) -> str:
    return content if isinstance(content, str) else ""
