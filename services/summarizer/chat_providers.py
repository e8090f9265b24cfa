"""Opens the providers that somebody else runs; part of `__main__`."""

import asyncio
import contextlib

from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.adapters.mistral_ocr import MistralOcrProvider
from services.summarizer.adapters.model_registry import Endpoint
from services.summarizer.adapters.openai_compatible import OpenAiCompatibleProvider, counter_with_margin
from services.summarizer.config import SummarizerSettings
from services.summarizer.domain.ports import Provider


async def chat_providers(
    settings: SummarizerSettings, endpoints: list[Endpoint], stack: contextlib.AsyncExitStack
) -> list[Provider]:
    """Mistral where there is a key for it, and one for each endpoint; `stack` closes them."""
    # The tokenizer takes a second to load, and health checks are waiting.
    count_text = await asyncio.to_thread(tekken_counter)
    providers: list[Provider] = []
    if settings.mistral_api_key is not None:
        mistral = MistralProvider(
            api_key=settings.mistral_api_key, url=str(settings.mistral_url), count_text=count_text
        )
        providers.append(await stack.enter_async_context(mistral))
    for endpoint in endpoints:
        compatible = OpenAiCompatibleProvider(
            endpoint, api_key=settings.provider_keys[endpoint.name], count_text=counter_with_margin(count_text)
        )
        providers.append(await stack.enter_async_context(compatible))
    return providers


async def ocr_providers(settings: SummarizerSettings, stack: contextlib.AsyncExitStack) -> list[Provider]:
    """Those that read pictures of pages; `stack` closes them."""
    if settings.mistral_api_key is None:
        return []
    mistral = MistralOcrProvider(api_key=settings.mistral_api_key, url=str(settings.mistral_url))
    return [await stack.enter_async_context(mistral)]
