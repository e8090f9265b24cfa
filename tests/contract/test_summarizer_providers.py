"""Provider: the scripted one of the tests, the offline one, Mistral against a server that speaks its API, and each of
them behind its guard."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from pydantic import SecretStr

from services.runtime.errors import NotFound
from services.summarizer.adapters.guarded import GuardedProvider
from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.adapters.offline import OfflineProvider
from services.summarizer.domain.citations import Locator
from services.summarizer.domain.ports import Provider
from services.summarizer.domain.values import Answer, Chunk, Claim, Length, Options, Page, Prompt, Stage, Style
from tests.fakes.mistral_server import MistralServer
from tests.unit.summarizer.flow.parts import ScriptedProvider
from tests.unit.summarizer.text.papers import chunk, page

PAGES = [
    page(
        1, "Bees choose their flowers by colour and not by their scent, as was believed before.", "They see blue best."
    ),
    page(2, "In all of our experiments the bees came back to the blue flowers three times as often.", "Red they miss."),
    page(3, "The honey that was made in the summer was given to the school of the village near by.", "It was good."),
]
WHOLE = chunk(*(p.text for p in PAGES))


@pytest.fixture(scope="module")
def mistral_server() -> Iterator[MistralServer]:
    with MistralServer() as server:
        yield server


@pytest.fixture(params=["scripted", "offline", "mistral"])
async def bare(request: pytest.FixtureRequest, mistral_server: MistralServer) -> AsyncIterator[Provider]:
    if request.param == "scripted":
        yield ScriptedProvider()
    elif request.param == "offline":
        async with OfflineProvider() as offline:
            yield offline
    else:
        key = SecretStr("key")
        async with MistralProvider(api_key=key, url=mistral_server.url, count_text=tekken_counter()) as mistral:
            yield mistral


@pytest.fixture(params=["bare", "guarded"])
async def provider(request: pytest.FixtureRequest, bare: Provider) -> Provider:
    return bare if request.param == "bare" else GuardedProvider(bare, remaining_s=lambda: None, tenant=lambda: "acme")


def ask(provider: Provider, part: Chunk = WHOLE, *, most: int = 3, claims: tuple[Claim, ...] = ()) -> Prompt:
    model = provider.models()[0]
    options = Options(Length.SHORT, Style.PARAGRAPH, "", "", f"{provider.name}/{model}")
    if claims:
        return Prompt(Stage.REDUCE, options, model, most, claims=claims)
    return Prompt(Stage.MAP, options, model, most, chunk=part)


async def streamed(provider: Provider, prompt: Prompt) -> tuple[str, Answer]:
    items = [item async for item in provider.stream(prompt)]
    *pieces, last = items
    assert isinstance(last, Answer)
    assert all(isinstance(piece, str) for piece in pieces)
    return "".join(str(piece) for piece in pieces), last


async def test_it_says_who_it_is_and_what_its_models_can_do(provider: Provider) -> None:
    assert provider.name
    assert provider.version
    assert provider.models()
    for model in provider.models():
        abilities = provider.abilities(model)
        assert 0 < abilities.max_output_tokens <= abilities.context_tokens
    with pytest.raises(NotFound):
        provider.abilities("no-such-model")


async def test_its_claims_quote_the_pages(provider: Provider) -> None:
    answer = await provider.complete(ask(provider))
    assert 1 <= len(answer.claims) <= 3
    locator = Locator(PAGES)
    for claim in answer.claims:
        assert claim.text.strip() == claim.text != ""
        assert claim.quotes
        for quote in claim.quotes:
            citation = locator.locate(quote)
            assert citation is not None
            assert citation.page == quote.page


async def test_it_never_uses_more_than_was_counted(provider: Provider) -> None:
    for most in (1, 3, 15):
        prompt = ask(provider, most=most)
        counted = provider.count(prompt)
        answer = await provider.complete(prompt)
        assert len(answer.claims) <= most
        assert 0 < answer.tokens.input_tokens <= counted.input_tokens
        assert 0 < answer.tokens.output_tokens <= counted.output_tokens


async def test_a_longer_prompt_never_counts_less(provider: Provider) -> None:
    empty = Chunk(0, "", ())
    counted = [provider.count(ask(provider, part)).input_tokens for part in (empty, chunk(PAGES[0].text), WHOLE)]
    assert counted == sorted(counted)
    assert counted[0] < counted[-1]


async def test_reduce_keeps_to_what_the_claims_quote(provider: Provider) -> None:
    first = await provider.complete(ask(provider, most=3))
    claims = first.claims * 3
    prompt = ask(provider, most=2, claims=claims)
    answer = await provider.complete(prompt)
    assert 1 <= len(answer.claims) <= 2
    quotes = {quote for claim in claims for quote in claim.quotes}
    assert {quote for claim in answer.claims for quote in claim.quotes} <= quotes
    assert answer.tokens.input_tokens <= provider.count(prompt).input_tokens


async def test_a_question_is_answered_out_of_the_pages_and_never_costs_more_than_was_counted(
    provider: Provider,
) -> None:
    prompt = replace(ask(provider), stage=Stage.ASK, question="How often did the bees come back to blue flowers?")
    answer = await provider.complete(prompt)
    counted = provider.count(prompt)
    assert 1 <= len(answer.claims) <= 3
    assert all(Locator(PAGES).locate(quote) for claim in answer.claims for quote in claim.quotes)
    assert 0 < answer.tokens.input_tokens <= counted.input_tokens
    assert 0 < answer.tokens.output_tokens <= counted.output_tokens
    longer = replace(prompt, question=prompt.question + " And why is that so?" * 40)
    assert provider.count(longer).input_tokens >= counted.input_tokens


async def test_the_stream_tells_the_same_and_ends_with_the_answer(provider: Provider) -> None:
    prompt = ask(provider)
    text, answer = await streamed(provider, prompt)
    assert answer == await provider.complete(prompt)
    assert "".join(text.split()) == "".join("".join(claim.text for claim in answer.claims).split())


async def test_a_stream_that_is_closed_early_leaves_the_provider_well(provider: Provider) -> None:
    stream = provider.stream(ask(provider))
    assert isinstance(await anext(stream), str)
    assert hasattr(stream, "aclose")
    async with aclosing(stream):
        pass
    assert (await provider.complete(ask(provider))).claims


async def test_a_cancelled_call_leaves_the_provider_well(provider: Provider) -> None:
    call = asyncio.create_task(provider.complete(ask(provider)))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert call.cancelled() or call.result().claims, "one that answers at once cannot be cancelled"
    assert (await provider.complete(ask(provider))).claims


async def test_many_calls_at_once_do_not_mix(provider: Provider) -> None:
    parts = [chunk(f"Number {n} is the one that this page has been about from the very beginning.") for n in range(8)]
    answers = await asyncio.gather(*(provider.complete(ask(provider, part)) for part in parts))
    for part, answer in zip(parts, answers, strict=True):
        locator = Locator([Page(1, part.text, page(1, part.text).words)])
        assert all(locator.locate(quote) for claim in answer.claims for quote in claim.quotes)
