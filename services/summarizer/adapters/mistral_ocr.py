"""Mistral's API for OCR (https://docs.mistral.ai/api, POST /v1/ocr): the text of a page, out of its picture."""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr

from services.runtime.errors import NotFound
from services.summarizer.adapters.bounded_http import bounded_client
from services.summarizer.adapters.provider_faults import unreadable
from services.summarizer.adapters.provider_http import ProviderHttp, translated
from services.summarizer.domain.fields_values import AnyPrompt
from services.summarizer.domain.page_text import MAX_MARKDOWN_CHARS
from services.summarizer.domain.pictures import PagePrompt
from services.summarizer.domain.ports import Abilities
from services.summarizer.domain.values import Answer, TokenCount

MODELS = ("mistral-ocr-latest", "mistral-ocr-4-0", "mistral-ocr-2512")
"""Those that have a price by page in the ledger's book."""

_NAME = "mistral"
_PATH = "/v1/ocr"
_ABILITIES = Abilities(context_tokens=0, max_output_tokens=0, writes=False, bills_unanswered=True)
_MOST_CHARGED = 100
"""For one page: a larger number is no bill but a mistake."""
_ONE_PAGE = TokenCount(0, 0, pages=1)
_MAX_RESPONSE_BYTES = 8 * 2**20
_MAX_CONNECTIONS = 50


class MistralOcrProvider:
    """Models that read pictures; one call is one page. Nothing is retried here; `timeout_s` bounds a call as a
    whole."""

    name = _NAME
    version = "1"

    def __init__(
        self,
        *,
        api_key: SecretStr,
        url: str,
        timeout_s: float = 60.0,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._http = bounded_client(
            max_response_bytes=_MAX_RESPONSE_BYTES, timeout_s=timeout_s, max_connections=_MAX_CONNECTIONS
        )
        self._api = ProviderHttp(self._http, url=url, api_key=api_key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def models(self) -> tuple[str, ...]:
        """Names as Mistral knows them."""
        return MODELS

    def abilities(self, model: str) -> Abilities:
        """The same for all. NotFound MODEL_UNKNOWN for a model that is not in the list."""
        if model not in MODELS:
            raise NotFound("MODEL_UNKNOWN", f"There is no model {model[:100]!r} of {_NAME} for OCR here.")
        return _ABILITIES

    def count(self, prompt: AnyPrompt) -> TokenCount:
        """One page."""
        return _ONE_PAGE

    async def complete(self, prompt: AnyPrompt) -> Answer:
        """The page's text, as Markdown. Raises what the port says, with reasons PROVIDER_…"""
        assert isinstance(prompt, PagePrompt)
        address = await asyncio.to_thread(_address, prompt)
        with translated(_NAME, timeout_s=self._timeout_s, now_s=self._now_s):
            async with asyncio.timeout(self._timeout_s):
                answer = await self._api.post(_PATH, _request(prompt, address))
            return _answer(answer)

    async def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
        """The same: there is nothing to be told on the way."""
        yield await self.complete(prompt)


def _address(prompt: PagePrompt) -> str:
    """The picture as a data URL."""
    return f"data:{prompt.picture.media_type};base64,{base64.b64encode(prompt.picture.content).decode('ascii')}"


def _request(prompt: PagePrompt, address: str) -> dict[str, Any]:
    return {
        "model": prompt.model,
        "document": {"type": "image_url", "image_url": address},
        "include_image_base64": False,
        # Where words stand is the parser's to tell, never a model's.
        "include_blocks": False,
        "table_format": "markdown",
    }


def _answer(answer: Mapping[str, Any]) -> Answer:
    """The one page. What is charged is what the answer says, and never less than the page that was sent. Raises
    ValueError where it is not in the form of the API, and Unavailable for another number of pages."""
    match answer:
        case {"pages": list() as pages, "usage_info": {"pages_processed": int() as processed}}:
            charged = TokenCount(0, 0, pages=min(max(1, processed), _MOST_CHARGED))
        case _:
            raise ValueError("no pages, or no word of what they cost")
    match pages:
        case [{"markdown": str() as said}] if charged.pages == 1:
            return Answer((), charged, text=said[:MAX_MARKDOWN_CHARS])
        case _:
            raise unreadable(_NAME, f"it tells of {len(pages)} pages where one was sent", charged)
