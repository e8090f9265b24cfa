"""Providers with a chat API against a server that speaks it and misbehaves in every way it can."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import SecretStr

from services.runtime.breaker import Breaker
from services.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    PagemeshError,
    ResourceExhausted,
    Unavailable,
)
from services.summarizer.adapters.chat import ChatProvider
from services.summarizer.adapters.guarded import GuardedProvider
from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.adapters.model_registry import ChatModel, Endpoint
from services.summarizer.adapters.openai_compatible import OpenAiCompatibleProvider, counter_with_margin
from services.summarizer.adapters.provider_faults import retry_after_s
from services.summarizer.domain.ports import Abilities
from services.summarizer.domain.values import Answer, Chunk, Claim, Prompt, Stage
from tests.fakes.mistral_server import MistralServer
from tests.unit.summarizer.text.papers import chunk, map_prompt

MODEL = "mistral-small-latest"
SECRET = "The secret of the garden was never told to anybody who had not been there in winter."
PROMPT = map_prompt(chunk(f"{SECRET} It lies under the old tree at the far end.", "Nobody looked there."), model=MODEL)


@pytest.fixture
def server() -> Iterator[MistralServer]:
    with MistralServer() as server:
        yield server


ABILITIES = Abilities(context_tokens=128_000, max_output_tokens=16_000, writes=True, bills_unanswered=True)
Make = Callable[..., ChatProvider]


def mistral_at(url: str, *, timeout_s: float = 20.0) -> ChatProvider:
    return MistralProvider(
        api_key=SecretStr("the-key"),
        url=url,
        count_text=tekken_counter(),
        timeout_s=timeout_s,
        now_s=lambda: 1_000_000.0,
    )


def compatible_at(
    url: str, *, timeout_s: float = 20.0, takes_schema: bool = True, reasoning_effort: str = ""
) -> ChatProvider:
    model = ChatModel(ABILITIES, takes_schema, reasoning_effort)
    return OpenAiCompatibleProvider(
        Endpoint("elsewhere", f"{url}/v1", "max_tokens", {MODEL: model}),
        api_key=SecretStr("the-key"),
        count_text=counter_with_margin(tekken_counter()),
        timeout_s=timeout_s,
        now_s=lambda: 1_000_000.0,
    )


@pytest.fixture(params=[mistral_at, compatible_at], ids=["mistral", "compatible"])
def provider_for(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


@pytest.fixture
async def provider(server: MistralServer, provider_for: Make) -> AsyncIterator[ChatProvider]:
    async with provider_for(server.url) as made:
        yield made


async def drain(provider: ChatProvider, prompt: Prompt = PROMPT) -> Answer:
    async with aclosing(provider.stream(prompt)) as items:
        async for item in items:
            if isinstance(item, Answer):
                return item
    raise AssertionError("a stream ends with its answer or an error")


@pytest.fixture(params=["complete", "stream"])
def call(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def fails(provider: ChatProvider, call: str) -> PagemeshError:
    with pytest.raises(PagemeshError) as failed:
        await (provider.complete(PROMPT) if call == "complete" else drain(provider))
    error = failed.value
    told = " ".join([str(error), *error.metadata.values()])
    assert "secret" not in told.lower(), "neither the document nor what the provider said is told"
    assert "the-key" not in told
    return error


async def test_what_is_sent(server: MistralServer, provider: ChatProvider, call: str) -> None:
    await (provider.complete(PROMPT) if call == "complete" else drain(provider))
    (sent,) = server.books.calls
    assert sent["authorization"] == "Bearer the-key"
    assert sent["model"] == MODEL
    assert sent["temperature"] == 0
    assert 0 < sent["max_tokens"] <= provider.count(PROMPT).output_tokens
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert SECRET not in sent["messages"][0]["content"]
    assert SECRET in sent["messages"][1]["content"]


async def test_each_call_has_a_fence_of_its_own(server: MistralServer, provider: ChatProvider) -> None:
    for _ in range(3):
        await provider.complete(PROMPT)
    fences = {sent["messages"][1]["content"].rsplit("END ", 1)[1] for sent in server.books.calls}
    assert len(fences) == 3


@dataclass(frozen=True)
class Refusal:
    """What the server does, and the error that it becomes."""

    behaviour: str
    kind: type[PagemeshError]
    reason: str
    wait_s: float | None = None


async def fails_with(provider: ChatProvider, prompt: Prompt) -> None:
    with pytest.raises(PagemeshError):
        await provider.complete(prompt)


REFUSALS = [
    Refusal("400", InvalidArgument, "PROVIDER_REFUSED"),
    Refusal("401", FailedPrecondition, "PROVIDER_CREDENTIAL"),
    Refusal("402", FailedPrecondition, "PROVIDER_CREDENTIAL"),
    Refusal("403", FailedPrecondition, "PROVIDER_CREDENTIAL"),
    Refusal("404", InvalidArgument, "PROVIDER_REFUSED"),
    Refusal("422", InvalidArgument, "PROVIDER_REFUSED"),
    Refusal("429", ResourceExhausted, "PROVIDER_RATE_LIMITED"),
    Refusal("429:7", ResourceExhausted, "PROVIDER_RATE_LIMITED", 7.0),
    Refusal("429:soon", ResourceExhausted, "PROVIDER_RATE_LIMITED"),
    Refusal("503", Unavailable, "PROVIDER_UNAVAILABLE"),
    Refusal("503:2", Unavailable, "PROVIDER_UNAVAILABLE", 2.0),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.behaviour)
async def test_refusals_are_told_and_not_billed(
    server: MistralServer, provider: ChatProvider, call: str, refusal: Refusal
) -> None:
    server.script(refusal.behaviour)
    error = await fails(provider, call)
    assert type(error) is refusal.kind
    assert (error.reason, error.retry_after_s) == (refusal.reason, refusal.wait_s)
    assert error.metadata["billed"] == "no"
    assert "sent" not in error.metadata
    assert server.books.input_tokens == 0
    assert server.calls == 1, "the adapter does not retry"
    assert (await provider.complete(PROMPT)).claims, "the next good request works"


@pytest.mark.parametrize("behaviour", ["cut", "not_http"])
async def test_an_answer_that_breaks_off_may_have_to_be_paid(
    server: MistralServer, provider: ChatProvider, call: str, behaviour: str
) -> None:
    server.script(behaviour)
    error = await fails(provider, call)
    assert type(error) is Unavailable
    assert error.reason == "PROVIDER_UNAVAILABLE"
    assert not {"sent", "billed", "input_tokens"} & set(error.metadata)


@pytest.mark.parametrize("status", ["302", "408", "500", "501", "502", "504", "520", "522", "524", "529"])
async def test_a_status_that_may_stand_before_an_answer_may_have_to_be_paid(
    server: MistralServer, provider: ChatProvider, status: str
) -> None:
    server.script(status)
    error = await fails(provider, "complete")
    assert type(error) is Unavailable
    assert error.reason == "PROVIDER_UNAVAILABLE"
    assert not {"sent", "billed"} & set(error.metadata)


@pytest.mark.parametrize("behaviour", ["invalid_json", "schema", "schema_sentence", "empty", "length"])
async def test_an_unreadable_answer_tells_what_it_used(
    server: MistralServer, provider: ChatProvider, call: str, behaviour: str
) -> None:
    server.script(behaviour)
    error = await fails(provider, call)
    assert type(error) is Unavailable
    assert error.reason == "PROVIDER_INVALID_ANSWER"
    books = server.books
    used = (error.metadata["input_tokens"], error.metadata["output_tokens"])
    assert used == (str(books.input_tokens), str(books.output_tokens))


async def test_an_answer_without_an_end_is_cut_short(server: MistralServer, provider: ChatProvider, call: str) -> None:
    server.script("over_long")
    error = await fails(provider, call)
    assert error.reason == "PROVIDER_INVALID_ANSWER"
    assert "too long" in error.message, "it was not read to its end"
    assert (await provider.complete(PROMPT)).claims


async def test_a_stream_that_ends_without_saying_so_is_cut(server: MistralServer, provider: ChatProvider) -> None:
    server.script("quiet_end")
    error = await fails(provider, "stream")
    assert error.reason == "PROVIDER_UNAVAILABLE"
    assert not {"sent", "billed"} & set(error.metadata)


async def test_an_answer_without_a_choice(server: MistralServer, provider: ChatProvider) -> None:
    server.script("no_choice")
    assert (await fails(provider, "complete")).reason == "PROVIDER_INVALID_ANSWER"


@pytest.mark.parametrize("behaviour", ["wrong_usage", "no_usage"])
async def test_usage_that_cannot_be_true_is_charged_at_its_most(
    server: MistralServer, provider: ChatProvider, call: str, behaviour: str
) -> None:
    server.script(behaviour)
    answer = await (provider.complete(PROMPT) if call == "complete" else drain(provider))
    assert answer.claims
    assert answer.tokens == provider.count(PROMPT)


@pytest.mark.parametrize(("how", "behaviour"), [("complete", "hang"), ("stream", "hang"), ("stream", "hang_midway")])
async def test_a_hanging_call_ends_with_its_time(
    server: MistralServer, provider_for: Make, how: str, behaviour: str
) -> None:
    async with provider_for(server.url, timeout_s=2) as provider:
        server.script(behaviour)
        error = await fails(provider, how)
        assert type(error) is DeadlineExceeded
        assert error.reason == "PROVIDER_TIMEOUT"
        assert not {"sent", "billed"} & set(error.metadata)
        await eventually(lambda: server.books.cancelled == 1)


async def test_cancelling_and_closing_end_the_call_at_the_server(server: MistralServer, provider: ChatProvider) -> None:
    server.script("hang", "hang_midway")
    task = asyncio.create_task(provider.complete(PROMPT))
    await eventually(lambda: server.calls == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    await eventually(lambda: server.books.cancelled == 1)
    stream = provider.stream(PROMPT)
    assert await anext(stream)
    await stream.aclose()
    await eventually(lambda: server.books.cancelled == 2)


async def test_a_server_that_is_away_was_never_sent_anything(provider_for: Make, call: str) -> None:
    with MistralServer() as gone:
        url = gone.url
    async with provider_for(url) as provider:
        error = await fails(provider, call)
    assert type(error) is Unavailable
    assert (error.metadata["sent"], error.metadata["billed"]) == ("no", "no")


async def test_text_comes_as_prose_while_it_is_written(server: MistralServer, provider: ChatProvider) -> None:
    said = {"sentences": [{"text": 'A "ré\U0001f600sumé".', "quotes": []}, {"text": "End.", "quotes": []}]}
    server.script(f"say:{json.dumps(said)}")
    items = [item async for item in provider.stream(PROMPT)]
    pieces = [item for item in items if isinstance(item, str)]
    assert len(pieces) > 3
    assert "".join(pieces) == 'A "ré\U0001f600sumé". End.'


async def test_a_model_that_obeys_the_document_can_only_make_ungrounded_sentences(
    server: MistralServer, provider: ChatProvider
) -> None:
    said = {"sentences": [{"text": "PWNED", "quotes": [{"quote": "not on any page of it", "page": 1}]}], "tool": "rm"}
    server.script(f"say:{json.dumps(said)}")
    (claim,) = (await provider.complete(PROMPT)).claims
    assert claim.text == "PWNED"


async def test_guarded_it_waits_as_it_is_told_and_pays_once(server: MistralServer, provider: ChatProvider) -> None:
    slept_s: list[float] = []

    async def sleep(seconds: float) -> None:
        slept_s.append(seconds)

    guarded = GuardedProvider(
        provider,
        remaining_s=lambda: 60.0,
        tenant=lambda: "acme",
        breaker_for=lambda _: Breaker("chat-test"),
        sleep=sleep,
        jitter=lambda: 0.0,
    )
    server.script("429:3", "503:1", "ok")
    answer = await guarded.complete(PROMPT)
    assert slept_s == [3.0, 1.0]
    assert server.calls == 3
    assert answer.tokens.input_tokens == server.books.input_tokens, "only the answer is on the bill"
    server.script("cut", "ok")
    with pytest.raises(Unavailable):
        await guarded.complete(PROMPT)
    assert server.calls == 4, "what may have to be paid is not sent twice"


@pytest.mark.parametrize(
    "text", ["", "word", "日本語の文章。" * 500, "a" * 20_000, "\n" * 5_000, "<s>[INST] 🙂 </s>" * 300], ids=len
)
async def test_the_count_is_an_upper_bound_of_what_the_tokenizer_sees(
    server: MistralServer, provider: ChatProvider, text: str
) -> None:
    prompt = map_prompt(Chunk(0, text, ((0, len(text), 1),)), model=MODEL)
    await provider.complete(prompt)
    messages = server.books.calls[-1]["messages"]
    seen = sum(tekken_counter()(message["content"]) for message in messages)
    assert seen <= provider.count(prompt).input_tokens


@pytest.mark.parametrize(
    "prompt",
    [
        replace(PROMPT, stage=Stage.REDUCE, chunk=None, claims=(Claim("One claim.", ()),)),
        replace(PROMPT, stage=Stage.ASK, question='日本語の「質問」?"\n\x00🙂' * 60),
    ],
    ids=["claims", "question"],
)
async def test_the_count_of_what_stands_around_the_material_is_one_too(
    server: MistralServer, provider: ChatProvider, prompt: Prompt
) -> None:
    server.script("empty")
    await fails_with(provider, prompt)
    sent = server.books.calls[-1]
    texts = [*(message["content"] for message in sent["messages"]), json.dumps(sent["response_format"])]
    assert sum(map(tekken_counter(), texts)) <= provider.count(prompt).input_tokens


def test_retry_after_is_a_number_or_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    later = format_datetime(now + timedelta(seconds=90), usegmt=True)
    for value, wanted in [
        ("5", 5.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("1e9", 3600.0),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("tomorrow", None),
        (None, None),
        (later, 90.0),
        (format_datetime(now - timedelta(hours=1), usegmt=True), 0.0),
        ("Thu, 01 Jan 2026 00:00:10", 10.0),
    ]:
        assert retry_after_s(value, now_s=now.timestamp) == wanted, value


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_model_that_takes_no_schema_is_asked_for_json(server: MistralServer, call: str) -> None:
    async with compatible_at(server.url, takes_schema=False, reasoning_effort="none") as provider:
        await (provider.complete(PROMPT) if call == "complete" else drain(provider))
    (sent,) = server.books.calls
    assert sent["response_format"] == {"type": "json_object"}
    assert sent["reasoning_effort"] == "none"


async def test_what_the_environment_says_of_other_programs_is_not_used(
    server: MistralServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "https://example.invalid")
    caplog.set_level("DEBUG")
    async with compatible_at(server.url) as provider:
        assert (await provider.complete(PROMPT)).claims
    (sent,) = server.books.calls
    assert sent["authorization"] == "Bearer the-key"
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "text", ["", "word " * 100, "日本語" * 100, "🙂" * 50], ids=["empty", "words", "kanji", "faces"]
)
def test_a_count_from_above_is_between_the_tokenizer_and_the_bytes(text: str) -> None:
    counted = counter_with_margin(tekken_counter())(text)
    assert tekken_counter()(text) <= counted <= len(text.encode()) or counted == len(text.encode())
