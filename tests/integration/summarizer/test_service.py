"""The service as its callers see it, while everything works."""

import asyncio

import grpc
import pytest

from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from services.runtime.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import BEES, DOCUMENT, MODEL, Client, Start, World, until_so
from tests.integration.summarizer.peers import Script

OTHER_TENANT = "globex"


@pytest.mark.usefixtures("document")
async def test_the_offline_model_chooses_sentences_of_the_document(start: Start, world: World) -> None:
    client = await start()
    summary = await client.summarize(length="SUMMARY_LENGTH_SHORT")
    assert summary.extractive
    assert summary.model == "offline/lexrank"
    assert summary.grounded_share == 1
    for sentence in summary.sentences:
        assert sentence.text in " ".join((BEES, summary.text))
    (event,) = await world.ledger.events()
    assert event[3] == summary.consumption.cost.micros > 0


@pytest.mark.usefixtures("document")
async def test_a_summary_is_cited_paid_and_then_cached(client: Client, world: World, mistral: MistralServer) -> None:
    summary = await client.summarize()
    assert not summary.extractive
    assert summary.text.startswith("Bees make honey")
    citation = summary.sentences[0].citations[0]
    assert citation.page == 1
    assert citation.quote == "Bees make honey from the nectar of flowers."
    assert (citation.boxes[0].x0, citation.boxes[0].y0, citation.boxes[0].x1) == (0, 0, 40 * 7 + 38)
    used = summary.consumption
    assert (used.provider_calls, used.settled) == (1, True)
    (event,) = await world.ledger.events()
    assert event == (
        "summarize.map",
        mistral.books.input_tokens,
        mistral.books.output_tokens,
        used.cost.micros,
    )
    assert await world.ledger.holds() == {used.usage_event_ids[0]: "SETTLED"}

    cached = await client.summarize()
    while not cached.cached:  # on a busy machine the cache may miss its 50 ms
        cached = await client.summarize()
    assert (cached.text, list(cached.sentences)) == (summary.text, list(summary.sentences))
    assert (cached.consumption.cost.micros, cached.consumption.provider_calls) == (0, 0)
    assert mistral.calls == 1

    async def saving_is_recorded() -> bool:
        return [event[0] for event in await world.ledger.events()] == ["summarize.map", "summarize.cache"]

    await until_so(saving_is_recorded)


@pytest.mark.usefixtures("document")
async def test_a_stream_tells_progress_text_sentences_and_the_summary_last(client: Client) -> None:
    events = [event async for event in client.stream()]
    kinds = [event.WhichOneof("event") for event in events]
    order = list(dict.fromkeys(kinds))
    assert order == ["progress", "text_delta", "sentence", "summary"]
    assert kinds.count("summary") == 1
    summary = events[-1].summary
    assert [event.sentence for event in events if event.HasField("sentence")] == list(summary.sentences)
    written = "".join(event.text_delta for event in events)
    assert summary.sentences[0].text in written
    last = [event.progress for event in events if event.HasField("progress")][-1]
    assert (last.pages_read, last.page_count, last.chunks_done, last.chunk_count) == (2, 2, 1, 1)


async def test_a_long_document_is_mapped_and_reduced(client: Client, world: World, mistral: MistralServer) -> None:
    pages = tuple(f"Chapter {n} begins here and says something. " + BEES * 5 for n in range(1, 81))
    world.extractor.documents[world.tenant, DOCUMENT] = Script(pages)
    summary = await client.summarize(style="SUMMARY_STYLE_BULLETS")
    assert mistral.calls == summary.consumption.provider_calls > 2
    assert all(line.startswith("- ") for line in summary.text.splitlines())
    assert summary.grounded_share == 1
    events = await world.ledger.events()
    assert [event[0] for event in events].count("summarize.reduce") == 1
    assert sum(event[1] for event in events) == mistral.books.input_tokens
    assert sum(event[2] for event in events) == mistral.books.output_tokens
    assert sum(event[3] for event in events) == summary.consumption.cost.micros


async def test_a_page_that_cannot_be_read_is_named(client: Client, document: Script) -> None:
    document.pages = (BEES, None)
    assert list((await client.summarize()).failed_pages) == [2]


@pytest.mark.usefixtures("document")
async def test_a_hundred_at_once_make_one_provider_call(client: Client, world: World, mistral: MistralServer) -> None:
    mistral.script("slow:0.5")
    summaries = await asyncio.gather(*(client.summarize() for _ in range(100)))
    assert mistral.calls == 1
    assert len({summary.text for summary in summaries}) == 1
    (event,) = [event for event in await world.ledger.events() if event[0] == "summarize.map"]
    assert sum(summary.consumption.cost.micros for summary in summaries) == event[3]


@pytest.mark.usefixtures("document")
async def test_two_replicas_that_are_asked_the_same_at_once_make_one_provider_call(
    start: Start, world: World, mistral: MistralServer
) -> None:
    settings = {"default_model": MODEL, "mistral_api_key": "a key", "mistral_url": mistral.url}
    replicas = [await start(**settings) for _ in range(2)]
    mistral.script("slow:1")
    summaries = await asyncio.gather(*(replica.summarize() for replica in replicas))
    assert mistral.calls == 1
    assert summaries[0].text == summaries[1].text
    (event,) = [event for event in await world.ledger.events() if event[0] == "summarize.map"]
    assert sorted(summary.consumption.cost.micros for summary in summaries) == [0, event[3]]


@pytest.mark.usefixtures("document")
async def test_a_wrong_document_tenant_model_or_option_is_refused_for_what_it_is(
    client: Client, world: World, mistral: MistralServer
) -> None:
    await world.ledger.admit(OTHER_TENANT)
    await client.summarize()
    with pytest.raises(NotFound):
        await client.summarize("documents/" + "0" * 32)
    with pytest.raises(NotFound):
        await client.summarize(tenant=OTHER_TENANT)
    with pytest.raises(InvalidArgument) as unknown:
        await client.summarize(model="mistral/made-up")
    assert unknown.value.reason == "MODEL_UNKNOWN"
    assert [violation.field for violation in unknown.value.fields] == ["options.model"]
    assert "offline/lexrank" in unknown.value.message
    with pytest.raises(InvalidArgument) as malformed:
        await client.summarize(language="not a language")
    assert [violation.field for violation in malformed.value.fields] == ["options.language"]
    assert mistral.calls == 1


@pytest.mark.usefixtures("document")
async def test_the_offline_model_refuses_another_language_and_costs_nothing(client: Client, world: World) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await client.summarize(model="offline/lexrank", language="de")
    assert caught.value.fields[0].field == "options.language"
    assert await world.ledger.holds() == {}


@pytest.mark.parametrize("pages", [("", " \n"), (None,)], ids=["no text", "unreadable"])
async def test_a_document_without_text_is_refused_before_anything_is_paid(
    client: Client, world: World, document: Script, pages: tuple[str | None, ...]
) -> None:
    document.pages = pages
    with pytest.raises(FailedPrecondition):
        await client.summarize()
    assert await world.ledger.holds() == {}


@pytest.mark.usefixtures("document")
async def test_a_budget_without_room_is_refused_as_the_ledger_says_it(
    client: Client, world: World, mistral: MistralServer
) -> None:
    await world.ledger.limit(1)
    with pytest.raises(ResourceExhausted) as caught:
        await client.summarize()
    assert caught.value.reason == "BUDGET_EXCEEDED"
    assert caught.value.quota is not None
    assert caught.value.quota.subject == "budgets/operator"
    assert mistral.calls == 0


@pytest.mark.usefixtures("document")
async def test_an_error_in_a_stream_is_its_last_event_and_its_status(client: Client, mistral: MistralServer) -> None:
    mistral.script("422")
    events = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for event in client.stream():
            events.append(event)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert events[-1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert events[0].HasField("progress")


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ((), grpc.StatusCode.UNAUTHENTICATED),
        ((("x-pagemesh-tenant", "acme"), ("x-pagemesh-scopes", "documents.read")), grpc.StatusCode.PERMISSION_DENIED),
    ],
    ids=["nobody", "without the scope"],
)
async def test_who_may_not_is_refused(
    client: Client, metadata: tuple[tuple[str, str], ...], code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.Summarize(service_pb2.SummarizeRequest(document=DOCUMENT), metadata=metadata)
    assert caught.value.code() is code


@pytest.mark.usefixtures("document")
async def test_a_provider_by_its_key_writes_a_summary_at_its_price(
    start: Start, world: World, mistral: MistralServer
) -> None:
    client = await start(
        default_model="openai/gpt-4.1-mini", provider_keys="openai=a key", provider_urls=f"openai={mistral.url}/v1"
    )
    summary = await client.summarize()
    assert (summary.model, summary.extractive, summary.degraded_from) == ("openai/gpt-4.1-mini", False, "")
    ((_, sent, received, cost),) = await world.ledger.events()
    assert cost == -(-(sent * 400_000 + received * 1_600_000) // 1_000_000) == summary.consumption.cost.micros
    assert (sent, received) == (mistral.books.input_tokens, mistral.books.output_tokens)


@pytest.mark.usefixtures("document")
async def test_with_its_provider_down_the_document_speaks_for_itself_where_the_caller_allows_it(
    client: Client, world: World, mistral: MistralServer
) -> None:
    mistral.script(*["500"] * 20)
    with pytest.raises(Unavailable):
        await client.summarize()
    summary = await client.summarize(focus="honey", fallback_models=["offline/lexrank"])
    assert (summary.model, summary.extractive, summary.degraded_from) == ("offline/lexrank", True, MODEL)
    assert summary.grounded_share == 1
    (event,) = await world.ledger.events()
    assert event[3] == summary.consumption.cost.micros > 0
