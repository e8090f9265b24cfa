"""Questions to the real service, with its ledger, Postgres and Valkey, while things work and while they do not."""

import asyncio
import contextlib
import json
from typing import Any

import grpc
import psycopg
import pytest

from pagemesh.summarizer.v1 import answer_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from services.runtime import status
from services.runtime.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import (
    BEES,
    DANCES,
    DOCUMENT,
    Client,
    Start,
    World,
    connected,
    metadata,
    until,
)
from tests.integration.summarizer.peers import Script

OTHER = "documents/" + "a" * 32
QUESTION = "What do bees make out of nectar?"


@pytest.fixture(autouse=True)
def documents(world: World) -> None:
    world.extractor.documents[world.tenant, DOCUMENT] = Script((DANCES, BEES))
    world.extractor.documents[world.tenant, OTHER] = Script(("Wasps make no honey of nectar. They build of wood.",))


def scopes(tenant: str, scope: str = "answers.create") -> tuple[tuple[str, str], ...]:
    return tuple((k, scope if k == "x-pagemesh-scopes" else v) for k, v in metadata(tenant))


async def ask(
    client: Client, question: str = QUESTION, *documents: str, tenant: str = "", **options: Any
) -> answer_pb2.Answer:
    request = answer_pb2.AskRequest(
        question=question,
        documents=documents or (DOCUMENT, OTHER),
        options=answer_pb2.AnswerOptions(**options),
    )
    try:
        response = await client.stub.Ask(request, timeout=30, metadata=scopes(tenant or client.tenant))
    except grpc.aio.AioRpcError as exc:
        raise status.from_rpc_error(exc, service="summarizer") from exc
    answer: answer_pb2.Answer = response.answer
    return answer


def stream(client: Client) -> Any:
    request = answer_pb2.StreamAskRequest(question=QUESTION, documents=[DOCUMENT, OTHER])
    return client.stub.StreamAsk(request, timeout=30, metadata=scopes(client.tenant))


async def test_an_answer_is_cited_paid_once_and_recorded(client: Client, world: World, mistral: MistralServer) -> None:
    answer = await ask(client)
    assert answer.found
    assert not answer.extractive
    cited = {(c.document, c.page): c for s in answer.statements for c in s.citations}
    assert set(cited) == {(p.document, p.page) for p in answer.passages} == {(DOCUMENT, 1), (DOCUMENT, 2), (OTHER, 1)}
    wasps = cited[OTHER, 1]
    assert wasps.quote == "Wasps make no honey of nectar."
    assert (wasps.boxes[0].x0, wasps.boxes[0].x1) == (0, 40 * 5 + 38)
    assert answer.grounded_share == 1
    used = answer.consumption
    assert await world.ledger.events() == [
        ("ask", mistral.books.input_tokens, mistral.books.output_tokens, used.cost.micros)
    ]
    assert await world.ledger.holds() == {used.usage_event_ids[0]: "SETTLED"}
    again = await ask(client)
    assert (again.cached, again.consumption.cost.micros, list(again.statements)) == (True, 0, list(answer.statements))
    assert mistral.calls == 1
    told = mistral.books.calls[0]["messages"]
    assert json.dumps(QUESTION) in told[1]["content"]
    assert QUESTION not in told[0]["content"]


async def test_an_estimate_calls_nobody_and_bounds_what_the_answer_costs(
    client: Client, world: World, mistral: MistralServer
) -> None:
    request = service_pb2.EstimateRequest(document=DOCUMENT, more_documents=[OTHER])
    request.question.question = QUESTION
    expected = (await client.stub.Estimate(request, metadata=scopes(client.tenant))).estimate
    assert (expected.document, expected.provider_calls, expected.page_count) == (DOCUMENT, 1, 3)
    assert (mistral.calls, await world.ledger.holds()) == (0, {})
    answer = await ask(client)
    price, cost = expected.price, answer.consumption.cost.micros
    assert price.low.micros <= cost <= price.high.micros
    known = (await client.stub.Estimate(request, metadata=scopes(client.tenant))).estimate
    assert (known.provider_calls, known.price.high.micros, known.free_chunk_count) == (0, 0, 1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.stub.Estimate(request, metadata=scopes(client.tenant, "summaries.create"))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_offline_model_answers_with_a_sentence_or_says_that_there_is_none(start: Start, world: World) -> None:
    client = await start()
    answer = await ask(client)
    assert (answer.found, answer.extractive, answer.model) == (True, True, "offline/lexrank")
    assert "Bees make honey from the nectar of flowers." in answer.text
    assert answer.grounded_share == 1
    nothing = await ask(client, "Who was the emperor of Japan in 1900?")
    assert (nothing.found, list(nothing.statements)) == (False, [])
    assert nothing.text == "The documents do not hold an answer to this question."
    assert [event[0] for event in await world.ledger.events()] == ["ask", "ask"]


async def test_a_stream_tells_text_statements_and_the_answer_last(client: Client) -> None:
    events = [event async for event in stream(client)]
    kinds = [event.WhichOneof("event") for event in events]
    assert list(dict.fromkeys(kinds)) == ["progress", "text_delta", "statement", "answer"]
    answer = events[-1].answer
    assert [event.statement for event in events if event.HasField("statement")] == list(answer.statements)
    assert answer.statements[0].text in "".join(event.text_delta for event in events)


async def test_what_is_made_up_is_no_answer(client: Client, mistral: MistralServer) -> None:
    said = [
        {"text": "Bees make honey.", "quotes": [{"quote": "Bees make honey from the nectar", "page": 2}]},
        {"text": "They make gold.", "quotes": [{"quote": "they make gold of it, too", "page": 2}]},
    ]
    mistral.script("say:" + json.dumps({"sentences": said}), "say:" + json.dumps({"sentences": said[1:]}))
    answer = await ask(client)
    assert [statement.grounded for statement in answer.statements] == [True, False]
    assert (answer.found, answer.grounded_share) == (True, 0.5)
    answer = await ask(client, "Do bees make gold?")
    assert not answer.found
    assert "gold" not in answer.text
    mistral.script('say:{"sentences": []}')
    assert not (await ask(client, "Do bees make silver?")).found


async def test_a_hundred_at_once_make_one_call(client: Client, mistral: MistralServer) -> None:
    mistral.script("slow:0.5")
    answers = await asyncio.gather(*(ask(client) for _ in range(100)))
    assert mistral.calls == 1
    assert len({answer.text for answer in answers}) == 1


async def test_hanging_up_ends_the_call(client: Client, mistral: MistralServer, world: World) -> None:
    mistral.script("hang")
    call = stream(client)
    assert (await call.read()).HasField("progress")
    await until(lambda: mistral.calls == 1)
    call.cancel()
    await until(lambda: mistral.books.cancelled == 1)
    assert list((await world.ledger.holds()).values()) == ["HELD"], "it may have been charged"


async def test_an_answer_goes_with_each_of_its_documents(client: Client, world: World, mistral: MistralServer) -> None:
    async def kept() -> int:
        async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
            await connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (world.tenant,))
            row = await (await connection.execute("SELECT count(*) FROM summarizer.results")).fetchone()
        return int(row[0]) if row else 0

    for number, document in enumerate((DOCUMENT, OTHER), start=1):
        assert not (await ask(client)).cached
        assert await kept() == 1
        async with connected(world.pki, client.target, world.tenant, identity="extractor") as extractor:
            purge = service_pb2.PurgeDocumentRequest(document=document)
            answer = await extractor.stub.PurgeDocument(purge, metadata=metadata(world.tenant), timeout=20)
        assert answer.results_deleted == 1
        assert await kept() == 0
        assert mistral.calls == number


async def test_who_may_not_ask_and_what_is_not_theirs(client: Client, world: World, mistral: MistralServer) -> None:
    await world.ledger.admit("globex")
    with pytest.raises(NotFound):
        await ask(client, tenant="globex")
    with pytest.raises(NotFound):
        await ask(client, QUESTION, DOCUMENT, "documents/" + "0" * 32)
    request = answer_pb2.AskRequest(question=QUESTION)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.stub.Ask(request, metadata=scopes(world.tenant, "summaries.create documents.read"))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(InvalidArgument) as unknown:
        await ask(client, model="mistral/made-up")
    assert unknown.value.reason == "MODEL_UNKNOWN"
    assert mistral.calls == 0
    assert world.extractor.reading == 0


@pytest.mark.parametrize("wire", ["extractor", "ledger", "postgres"])
async def test_what_is_away_is_told_and_nothing_is_paid(
    client: Client, world: World, mistral: MistralServer, wire: str
) -> None:
    world.wires[wire].cut()
    with pytest.raises(Unavailable):
        await ask(client)
    assert mistral.calls == 0
    world.wires[wire].mend()
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable):
                assert (await ask(client)).found
                break
            await asyncio.sleep(0.2)


async def test_without_the_cache_it_is_all_the_same(client: Client, world: World) -> None:
    world.wires["valkey"].cut()
    assert (await ask(client)).found


async def test_a_budget_without_room_is_refused(client: Client, world: World, mistral: MistralServer) -> None:
    await world.ledger.limit(1)
    with pytest.raises(ResourceExhausted):
        await ask(client)
    assert mistral.calls == 0


async def test_another_model_answers_where_the_first_cannot(client: Client, mistral: MistralServer) -> None:
    mistral.script(*["500"] * 20)
    answer = await ask(client, fallback_models=["offline/lexrank"])
    assert (answer.model, answer.degraded_from) == ("offline/lexrank", "mistral/mistral-small-latest")
    assert answer.found
