"""Vectors by the real service, with its ledger and Postgres: paid once, recorded once, also where it is killed."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from pagemesh.summarizer.v1 import embedding_pb2
from services.runtime import status
from services.runtime.config import WrongSettingError
from services.runtime.errors import FailedPrecondition, NotFound, PermissionDenied, Unavailable
from services.summarizer.__main__ import serve
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import DOCUMENT, Client, Start, World, connected, metadata
from tests.integration.summarizer.peers import Script

MODEL = "mistral/mistral-embed"
pytestmark = pytest.mark.usefixtures("document")


@pytest.fixture
async def embedder(start: Start, mistral: MistralServer) -> Client:
    return await start(mistral_api_key="a key", mistral_url=mistral.url, embedding_model=MODEL)


@pytest.fixture
async def as_extractor(embedder: Client, world: World) -> AsyncIterator[Client]:
    async with connected(world.pki, embedder.target, world.tenant, identity="extractor") as client:
        yield client


async def embed(client: Client, document: str = DOCUMENT, tenant: str = "") -> embedding_pb2.EmbedDocumentResponse:
    request = embedding_pb2.EmbedDocumentRequest(document=document)
    try:
        done: embedding_pb2.EmbedDocumentResponse = await client.stub.EmbedDocument(
            request, timeout=30, metadata=metadata(tenant or client.tenant)
        )
    except grpc.aio.AioRpcError as exc:
        raise status.from_rpc_error(exc, service="summarizer") from exc
    return done


async def query(client: Client, text: str) -> embedding_pb2.EmbedQueryResponse:
    try:
        found: embedding_pb2.EmbedQueryResponse = await client.stub.EmbedQuery(
            embedding_pb2.EmbedQueryRequest(query=text), timeout=30, metadata=metadata(client.tenant)
        )
    except grpc.aio.AioRpcError as exc:
        raise status.from_rpc_error(exc, service="summarizer") from exc
    return found


async def test_a_document_is_embedded_paid_by_the_price_book_and_kept(
    embedder: Client, world: World, mistral: MistralServer
) -> None:
    done = await embed(embedder)
    assert (done.model, done.page_count, done.passage_count) == (MODEL, 2, 2)
    tokens = mistral.books.input_tokens
    cost = -(-tokens * 100_000 // 1_000_000)
    assert await world.ledger.events() == [("embed", tokens, 0, cost)]
    assert (done.consumption.cost.micros, done.consumption.settled) == (cost, True)
    assert await world.ledger.holds() == {done.consumption.usage_event_ids[0]: "SETTLED"}
    (kept,) = world.extractor.vectors
    assert [(each.page, each.part, len(each.vector)) for each in kept.passages] == [(1, 0, 128), (2, 0, 128)]
    again = await embed(embedder)
    assert (mistral.calls, again.consumption.provider_calls) == (1, 0)
    assert world.extractor.vectors[1] == kept
    assert not world.extractor.held
    with pytest.raises(NotFound):
        await embed(embedder, "documents/" + "9" * 32)
    with pytest.raises(NotFound):
        await embed(embedder, tenant="t-somebody-else")


async def test_many_at_once_are_paid_once(embedder: Client, world: World, mistral: MistralServer) -> None:
    mistral.script("slow:0.2")
    await asyncio.gather(*(embed(embedder) for _ in range(8)))
    assert mistral.calls == 1
    assert len(await world.ledger.events()) == 1


async def test_where_the_extractor_could_not_keep_them_the_next_try_is_free(
    embedder: Client, world: World, mistral: MistralServer
) -> None:
    world.extractor.keeps_vectors = False
    with pytest.raises(Unavailable):
        await embed(embedder)
    assert not world.extractor.vectors
    world.extractor.keeps_vectors = True
    done = await embed(embedder)
    assert (mistral.calls, done.consumption.provider_calls, len(world.extractor.vectors)) == (1, 0, 1)


async def test_a_query_is_the_extractors_to_ask_and_the_tenants_to_pay(
    embedder: Client, as_extractor: Client, world: World, mistral: MistralServer
) -> None:
    assert (await query(as_extractor, "")).model == MODEL
    assert mistral.calls == 0
    found = await query(as_extractor, "Who makes honey?")
    assert (found, len(found.vector)) == (await query(as_extractor, "Who makes honey?"), 128)
    assert [event[0] for event in await world.ledger.events()] == ["embed.query"]
    assert mistral.calls == 1
    with pytest.raises(PermissionDenied):
        await query(embedder, "Who makes honey?")


async def test_without_a_model_or_its_key(start: Start, world: World, document: Script) -> None:
    with pytest.raises(FailedPrecondition) as told:
        await embed(await start())
    assert told.value.reason == "EMBEDDING_NOT_CONFIGURED"
    for wrong in ({}, {"mistral_api_key": "k", "anonymise_always": "email"}):
        changes = {"embedding_model": MODEL, "grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", **wrong}
        with pytest.raises(WrongSettingError, match="PAGEMESH_EMBEDDING_MODEL"):
            await serve(world.settings(**changes))
