"""Embeddings against a server that speaks the API: what comes, what it costs, and what is made of misbehaviour."""

import math
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from pydantic import SecretStr

from services.runtime.errors import NotFound, PagemeshError
from services.summarizer.adapters import encoding
from services.summarizer.adapters.embeddings import EmbeddingsProvider
from services.summarizer.adapters.guarded import GuardedProvider
from services.summarizer.domain.paid_calls import CallState, state_of
from services.summarizer.domain.values import Length, Options, Prompt, Stage, Style
from tests.fakes.embedding import DIMENSIONS
from tests.fakes.mistral_server import MistralServer

OPTIONS = Options(Length.SHORT, Style.PARAGRAPH, "", "", "")
TEXTS = ("Cars are fast.", "An automobile is fast.", "Bees make honey.")


def prompt(*texts: str, model: str = "mistral-embed") -> Prompt:
    return Prompt(Stage.EMBED, OPTIONS, model, 0, texts=texts or TEXTS)


@pytest.fixture(scope="module")
def server() -> Iterator[MistralServer]:
    with MistralServer() as server:
        yield server


@pytest.fixture
async def provider(server: MistralServer) -> AsyncIterator[EmbeddingsProvider]:
    server.script()
    made = EmbeddingsProvider(
        name="mistral", model="mistral-embed", url=f"{server.url}/v1/", api_key=SecretStr("secret"), timeout_s=5
    )
    yield made
    await made.close()


def product(one: bytes, other: bytes) -> float:
    numbers = [struct.unpack(f"<{len(each) // 2}e", each) for each in (one, other)]
    return math.fsum(a * b for a, b in zip(*numbers, strict=True))


async def test_a_vector_of_length_one_for_each_text_in_order(
    provider: EmbeddingsProvider, server: MistralServer
) -> None:
    before = server.books.input_tokens
    answer = await provider.complete(prompt())
    cars, automobile, bees = answer.vectors
    assert {len(each) for each in answer.vectors} == {2 * DIMENSIONS}
    assert product(cars, cars) == pytest.approx(1, abs=0.01)
    assert product(cars, automobile) > 0.5 > product(cars, bees)
    assert answer.tokens.input_tokens == server.books.input_tokens - before
    assert 0 < answer.tokens.input_tokens <= provider.count(prompt()).input_tokens
    assert answer.tokens.output_tokens == 0
    sent = server.books.calls[-1]
    assert (sent["authorization"], sent["model"], sent["input"]) == ("Bearer secret", "mistral-embed", list(TEXTS))
    assert encoding.decode_answer(encoding.encode_answer(answer)) == answer


async def test_another_model_is_not_served(provider: EmbeddingsProvider) -> None:
    with pytest.raises(NotFound):
        await provider.complete(prompt(model="other"))


@pytest.mark.parametrize(
    ("behaviour", "reason", "state"),
    [
        ("401", "PROVIDER_CREDENTIAL", CallState.FREE),
        ("422", "PROVIDER_REFUSED", CallState.FREE),
        ("429:2", "PROVIDER_RATE_LIMITED", CallState.FREE),
        ("500", "PROVIDER_UNAVAILABLE", CallState.UNKNOWN),
        ("503:1", "PROVIDER_UNAVAILABLE", CallState.FREE),
        ("cut", "PROVIDER_UNAVAILABLE", CallState.UNKNOWN),
        ("not_http", "PROVIDER_UNAVAILABLE", CallState.UNKNOWN),
        ("over_long", "PROVIDER_INVALID_ANSWER", CallState.UNKNOWN),
        ("fewer", "PROVIDER_INVALID_ANSWER", CallState.KNOWN),
        ("ragged", "PROVIDER_INVALID_ANSWER", CallState.KNOWN),
        ("zero", "PROVIDER_INVALID_ANSWER", CallState.KNOWN),
    ],
)
async def test_misbehaviour_is_told_with_what_it_cost(
    provider: EmbeddingsProvider, server: MistralServer, behaviour: str, reason: str, state: CallState
) -> None:
    server.script(behaviour)
    with pytest.raises(PagemeshError) as told:
        await provider.complete(prompt())
    assert told.value.reason == reason
    assert state_of(told.value, bills_unanswered=True) is state
    assert "SECRET" not in str(told.value)


@pytest.mark.parametrize("behaviour", ["wrong_usage", "no_usage"])
async def test_usage_that_cannot_be_true_is_the_most_that_it_can_be(
    provider: EmbeddingsProvider, server: MistralServer, behaviour: str
) -> None:
    server.script(behaviour)
    assert (await provider.complete(prompt())).tokens == provider.count(prompt())


async def test_it_hangs_or_is_not_there(server: MistralServer) -> None:
    for url, behaviour, reason, state in (
        (server.url, "hang", "PROVIDER_TIMEOUT", CallState.UNKNOWN),
        ("http://127.0.0.1:1", "ok", "PROVIDER_UNAVAILABLE", CallState.FREE),
    ):
        server.script(behaviour)
        provider = EmbeddingsProvider(
            name="mistral", model="mistral-embed", url=f"{url}/v1", api_key=SecretStr("k"), timeout_s=0.3
        )
        with pytest.raises(PagemeshError) as told:
            await provider.complete(prompt())
        assert (told.value.reason, state_of(told.value, bills_unanswered=True)) == (reason, state)
        await provider.close()


async def test_behind_its_guard_a_refusal_for_load_is_tried_again(
    provider: EmbeddingsProvider, server: MistralServer
) -> None:
    guarded = GuardedProvider(provider, remaining_s=lambda: None, tenant=lambda: "acme", jitter=lambda: 0.0)
    server.script("429", "503:0", "ok")
    calls = server.calls
    assert len((await guarded.complete(prompt())).vectors) == len(TEXTS)
    assert server.calls == calls + 3
