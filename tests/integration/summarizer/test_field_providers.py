"""Fields from each kind of provider: what is sent, what is read, and that no call uses more than was counted."""

import json
from dataclasses import replace

import pytest

from services.runtime.errors import Unavailable
from services.summarizer.adapters.mistral import tekken_counter
from services.summarizer.adapters.offline import OfflineProvider
from services.summarizer.domain import prompt_forms
from services.summarizer.domain.fields_prompts import most_fields
from services.summarizer.domain.fields_values import Complaint, FieldsPrompt, FieldsStage
from services.summarizer.domain.found_field import FoundField
from services.summarizer.domain.json_schema import check
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.test_chat_providers import MODEL, Make, compatible_at, provider_for, server
from tests.unit.summarizer.text.papers import chunk

__all__ = ["provider_for", "server"]  # fixtures

SCHEMA = check(
    {
        "type": "object",
        "properties": {"total": {"type": "number"}, "tags": {"type": "array", "items": {"title": "Schlagwörter"}}},
    }
)
PROMPT = FieldsPrompt(
    FieldsStage.EXTRACT,
    MODEL,
    SCHEMA.text,
    SCHEMA.targets,
    most_fields(SCHEMA.targets),
    chunk("Total: 12,50 EUR", "Überschrift der zweiten Seite"),
)
COMPLAINTS = tuple(Complaint(f"/tags/{n}", "must be one of them", "wort " * 20) for n in range(30))
REPAIR = replace(PROMPT, stage=FieldsStage.REPAIR, complaints=COMPLAINTS)


async def test_fields_come_with_their_usage(provider_for: Make, server: MistralServer) -> None:
    async with provider_for(server.url) as provider:
        answer = await provider.complete(PROMPT)
    assert answer.fields == (FoundField("/total", "12,50 EUR", "Total: 12,50 EUR", 1),)
    assert answer.claims == ()
    assert answer.tokens.input_tokens == server.books.input_tokens
    (body,) = server.books.calls
    schema = body["response_format"]["json_schema"]
    assert (schema["name"], schema["strict"]) == ("fields", True)
    assert "fields" in json.dumps(schema)


async def test_a_model_without_schemas_is_told_the_form_in_words(server: MistralServer) -> None:
    async with compatible_at(server.url, takes_schema=False) as provider:
        assert (await provider.complete(PROMPT)).fields
    (body,) = server.books.calls
    assert body["response_format"] == {"type": "json_object"}
    assert '{"fields": [{"pointer"' in body["messages"][0]["content"]


@pytest.mark.parametrize("prompt", [PROMPT, REPAIR], ids=["extract", "repair"])
async def test_no_call_sends_more_than_was_counted(provider_for: Make, prompt: FieldsPrompt) -> None:
    count = tekken_counter()
    fences = iter("0123456789abcdef" for _ in range(9)).__next__
    messages = prompt_forms.render(prompt, fences)
    sent = count(messages.system) + count(messages.user) + count(json.dumps(prompt_forms.answer_schema(prompt)))
    async with provider_for("http://127.0.0.1:1") as provider:
        most = provider.count(prompt)
    assert sent <= most.input_tokens
    assert most.output_tokens <= 16_000


@pytest.mark.parametrize("said", ['{"sentences": []}', '{"fields": [{"pointer": "/total"}]}', "[]", "no"])
async def test_another_form_is_refused_with_its_usage(provider_for: Make, server: MistralServer, said: str) -> None:
    server.script(f"say:{said}")
    async with provider_for(server.url) as provider:
        with pytest.raises(Unavailable) as caught:
            await provider.complete(PROMPT)
    assert caught.value.reason == "PROVIDER_INVALID_ANSWER"
    assert int(caught.value.metadata["input_tokens"]) == server.books.input_tokens


async def test_the_offline_provider_keeps_to_what_it_counted() -> None:
    prompt = replace(PROMPT, model="lexrank")
    async with OfflineProvider(processes=1) as provider:
        answer = await provider.complete(prompt)
        most = provider.count(prompt)
    assert [field.value for field in answer.fields] == ["12,50 EUR"]
    assert answer.tokens.input_tokens == most.input_tokens
    assert 0 < answer.tokens.output_tokens <= most.output_tokens
