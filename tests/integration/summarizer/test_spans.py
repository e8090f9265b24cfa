"""What is told of a call to a provider: which, how often, how much, and nothing of what was said."""

from collections.abc import Iterator

import pytest

from services.telemetry import start as telemetry
from tests.fakes.collector import Collector, collecting
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import Start
from tests.integration.summarizer.peers import Script


@pytest.fixture
def told() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector
    telemetry.close()


async def test_each_try_of_a_call_is_a_span_with_its_tokens_and_what_was_paid(
    start: Start, paid: dict[str, object], mistral: MistralServer, document: Script, told: Collector
) -> None:
    client = await start(**paid, otlp_endpoint=told.endpoint)
    mistral.script("429", "ok")
    summary = await client.summarize(timeout_s=60)
    found = told.until(lambda spans: any(span.name.endswith("/Summarize") for span in spans))
    refused, answered = [span for span in found if span.name == "chat mistral-small-latest"]
    assert [refused.attributes["pagemesh.attempt"], answered.attributes["pagemesh.attempt"]] == [1, 2]
    assert (refused.is_error, refused.attributes["error.type"]) == (True, "PROVIDER_RATE_LIMITED")
    assert not answered.is_error
    assert answered.attributes["gen_ai.provider.name"] == "mistral"
    assert answered.attributes["gen_ai.usage.input_tokens"] == mistral.books.input_tokens
    assert answered.attributes["gen_ai.usage.output_tokens"] == mistral.books.output_tokens
    (call,) = [span for span in found if span.name == "paid call"]
    assert {refused.parent, answered.parent} == {call.span}
    assert call.attributes["pagemesh.cost_micros"] == summary.consumption.cost.micros > 0
    assert len({span.trace for span in (refused, answered, call)}) == 1
    words = [word for page in document.pages for word in str(page).split() if len(word) > 7]
    assert words
    for said in (*words, "a key", *(sentence.text for sentence in summary.sentences)):
        assert not any(said.encode() in request for request in told.raw), said
