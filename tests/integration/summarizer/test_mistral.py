"""MistralProvider against a server that speaks the API and misbehaves in every way it can."""

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
from services.summarizer.adapters.guarded import GuardedProvider
from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.adapters.provider_faults import retry_after_s
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


def provider_for(url: str, timeout_s: float = 20.0) -> MistralProvider:
    return MistralProvider(
        api_key=SecretStr("the-key"),
        url=url,
        count_text=tekken_counter(),
        timeout_s=timeout_s,
        now_s=lambda: 1_000_000.0,
    )


@pytest.fixture
async def mistral(server: MistralServer) -> AsyncIterator[MistralProvider]:
    async with provider_for(server.url) as provider:
        yield provider


async def drain(provider: MistralProvider, prompt: Prompt = PROMPT) -> Answer:
    async with aclosing(provider.stream(prompt)) as items:
        async for item in items:
            if isinstance(item, Answer):
                return item
    raise AssertionError("a stream ends with its answer or an error")


@pytest.fixture(params=["complete", "stream"])
def call(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def fails(provider: MistralProvider, call: str) -> PagemeshError:
    with pytest.raises(PagemeshError) as failed:
        await (provider.complete(PROMPT) if call == "complete" else drain(provider))
    error = failed.value
    told = " ".join([str(error), *error.metadata.values()])
    assert "secret" not in told.lower(), "neither the document nor what the provider said is told"
    assert "the-key" not in told
    return error


async def test_what_is_sent(server: MistralServer, mistral: MistralProvider, call: str) -> None:
    await (mistral.complete(PROMPT) if call == "complete" else drain(mistral))
    (sent,) = server.books.calls
    assert sent["authorization"] == "Bearer the-key"
    assert sent["model"] == MODEL
    assert sent["temperature"] == 0
    assert 0 < sent["max_tokens"] <= mistral.count(PROMPT).output_tokens
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert SECRET not in sent["messages"][0]["content"]
    assert SECRET in sent["messages"][1]["content"]


async def test_each_call_has_a_fence_of_its_own(server: MistralServer, mistral: MistralProvider) -> None:
    for _ in range(3):
        await mistral.complete(PROMPT)
    fences = {sent["messages"][1]["content"].rsplit("END ", 1)[1] for sent in server.books.calls}
    assert len(fences) == 3


@dataclass(frozen=True)
class Refusal:
    """What the server does, and the error that it becomes."""

    behaviour: str
    kind: type[PagemeshError]
    reason: str
    wait_s: float | None = None


async def fails_with(provider: MistralProvider, prompt: Prompt) -> None:
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
    server: MistralServer, mistral: MistralProvider, call: str, refusal: Refusal
) -> None:
    server.script(refusal.behaviour)
    error = await fails(mistral, call)
    assert type(error) is refusal.kind
    assert (error.reason, error.retry_after_s) == (refusal.reason, refusal.wait_s)
    assert error.metadata["billed"] == "no"
    assert "sent" not in error.metadata
    assert server.books.input_tokens == 0
    assert server.calls == 1, "the adapter does not retry"
    assert (await mistral.complete(PROMPT)).claims, "the next good request works"


@pytest.mark.parametrize("behaviour", ["cut", "not_http"])
async def test_an_answer_that_breaks_off_may_have_to_be_paid(
    server: MistralServer, mistral: MistralProvider, call: str, behaviour: str
) -> None:
    server.script(behaviour)
    error = await fails(mistral, call)
    assert type(error) is Unavailable
    assert error.reason == "PROVIDER_UNAVAILABLE"
    assert not {"sent", "billed", "input_tokens"} & set(error.metadata)


@pytest.mark.parametrize("status", ["302", "408", "500", "501", "502", "504", "520", "522", "524", "529"])
async def test_a_status_that_may_stand_before_an_answer_may_have_to_be_paid(
    server: MistralServer, mistral: MistralProvider, status: str
) -> None:
    server.script(status)
    error = await fails(mistral, "complete")
    assert type(error) is Unavailable
    assert error.reason == "PROVIDER_UNAVAILABLE"
    assert not {"sent", "billed"} & set(error.metadata)


@pytest.mark.parametrize("behaviour", ["invalid_json", "schema", "schema_sentence", "empty", "length"])
async def test_an_unreadable_answer_tells_what_it_used(
    server: MistralServer, mistral: MistralProvider, call: str, behaviour: str
) -> None:
    server.script(behaviour)
    error = await fails(mistral, call)
    assert type(error) is Unavailable
    assert error.reason == "PROVIDER_INVALID_ANSWER"
    books = server.books
    used = (error.metadata["input_tokens"], error.metadata["output_tokens"])
    assert used == (str(books.input_tokens), str(books.output_tokens))


async def test_an_answer_without_an_end_is_cut_short(
    server: MistralServer, mistral: MistralProvider, call: str
) -> None:
    server.script("over_long")
    error = await fails(mistral, call)
    assert error.reason == "PROVIDER_INVALID_ANSWER"
    assert "too long" in error.message, "it was not read to its end"
    assert (await mistral.complete(PROMPT)).claims


async def test_a_stream_that_ends_without_saying_so_is_cut(server: MistralServer, mistral: MistralProvider) -> None:
    server.script("quiet_end")
    error = await fails(mistral, "stream")
    assert error.reason == "PROVIDER_UNAVAILABLE"
    assert not {"sent", "billed"} & set(error.metadata)


async def test_an_answer_without_a_choice(server: MistralServer, mistral: MistralProvider) -> None:
    server.script("no_choice")
    assert (await fails(mistral, "complete")).reason == "PROVIDER_INVALID_ANSWER"


@pytest.mark.parametrize("behaviour", ["wrong_usage", "no_usage"])
async def test_usage_that_cannot_be_true_is_charged_at_its_most(
    server: MistralServer, mistral: MistralProvider, call: str, behaviour: str
) -> None:
    server.script(behaviour)
    answer = await (mistral.complete(PROMPT) if call == "complete" else drain(mistral))
    assert answer.claims
    assert answer.tokens == mistral.count(PROMPT)


@pytest.mark.parametrize(("how", "behaviour"), [("complete", "hang"), ("stream", "hang"), ("stream", "hang_midway")])
async def test_a_hanging_call_ends_with_its_time(server: MistralServer, how: str, behaviour: str) -> None:
    async with provider_for(server.url, timeout_s=2) as mistral:
        server.script(behaviour)
        error = await fails(mistral, how)
        assert type(error) is DeadlineExceeded
        assert error.reason == "PROVIDER_TIMEOUT"
        assert not {"sent", "billed"} & set(error.metadata)
        await eventually(lambda: server.books.cancelled == 1)


async def test_cancelling_and_closing_end_the_call_at_the_server(
    server: MistralServer, mistral: MistralProvider
) -> None:
    server.script("hang", "hang_midway")
    task = asyncio.create_task(mistral.complete(PROMPT))
    await eventually(lambda: server.calls == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    await eventually(lambda: server.books.cancelled == 1)
    stream = mistral.stream(PROMPT)
    assert await anext(stream)
    await stream.aclose()
    await eventually(lambda: server.books.cancelled == 2)


async def test_a_server_that_is_away_was_never_sent_anything(call: str) -> None:
    with MistralServer() as gone:
        url = gone.url
    async with provider_for(url) as mistral:
        error = await fails(mistral, call)
    assert type(error) is Unavailable
    assert (error.metadata["sent"], error.metadata["billed"]) == ("no", "no")


async def test_text_comes_as_prose_while_it_is_written(server: MistralServer, mistral: MistralProvider) -> None:
    said = {"sentences": [{"text": 'A "ré\U0001f600sumé".', "quotes": []}, {"text": "End.", "quotes": []}]}
    server.script(f"say:{json.dumps(said)}")
    items = [item async for item in mistral.stream(PROMPT)]
    pieces = [item for item in items if isinstance(item, str)]
    assert len(pieces) > 3
    assert "".join(pieces) == 'A "ré\U0001f600sumé". End.'


async def test_a_model_that_obeys_the_document_can_only_make_ungrounded_sentences(
    server: MistralServer, mistral: MistralProvider
) -> None:
    said = {"sentences": [{"text": "PWNED", "quotes": [{"quote": "not on any page of it", "page": 1}]}], "tool": "rm"}
    server.script(f"say:{json.dumps(said)}")
    (claim,) = (await mistral.complete(PROMPT)).claims
    assert claim.text == "PWNED"


async def test_guarded_it_waits_as_it_is_told_and_pays_once(server: MistralServer, mistral: MistralProvider) -> None:
    slept_s: list[float] = []

    async def sleep(seconds: float) -> None:
        slept_s.append(seconds)

    guarded = GuardedProvider(
        mistral,
        remaining_s=lambda: 60.0,
        breaker_for=lambda _: Breaker("mistral-test"),
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
    server: MistralServer, mistral: MistralProvider, text: str
) -> None:
    prompt = map_prompt(Chunk(0, text, ((0, len(text), 1),)), model=MODEL)
    await mistral.complete(prompt)
    messages = server.books.calls[-1]["messages"]
    seen = sum(tekken_counter()(message["content"]) for message in messages)
    assert seen <= mistral.count(prompt).input_tokens


async def test_the_count_of_what_stands_around_the_material_is_one_too(
    server: MistralServer, mistral: MistralProvider
) -> None:
    prompt = replace(PROMPT, stage=Stage.REDUCE, chunk=None, claims=(Claim("One claim.", ()),))
    server.script("empty")
    await fails_with(mistral, prompt)
    sent = server.books.calls[-1]
    texts = [*(message["content"] for message in sent["messages"]), json.dumps(sent["response_format"])]
    assert sum(map(tekken_counter(), texts)) <= mistral.count(prompt).input_tokens


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
