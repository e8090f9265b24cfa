"""Erasing what was made of a document, in the real service on a real Postgres and Valkey."""

import asyncio

import grpc
import psycopg
import pytest

from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from services.runtime.errors import NotFound
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import (
    BEES,
    DOCUMENT,
    MODEL,
    Client,
    Start,
    World,
    connected,
    metadata,
    until,
    until_so,
)
from tests.integration.summarizer.peers import Script

pytestmark = pytest.mark.usefixtures("document")
LETTERS = "abcdefghijklmno"
PURGE = service_pb2.PurgeDocumentRequest(document=DOCUMENT)


async def answers(world: World) -> int:
    async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (world.tenant,))
        row = await (await connection.execute("SELECT count(*) FROM summarizer.results")).fetchone()
    assert row is not None
    return int(row[0])


async def purge(world: World, start: Start, **changes: object) -> tuple[Client, int]:
    """A client of the edge, and what a purge by the extractor removed after its first summary."""
    client = await start(**changes)
    await client.summarize()
    target = client.target
    async with connected(world.pki, target, world.tenant, identity="extractor") as extractor:
        answer = await extractor.stub.PurgeDocument(PURGE, metadata=metadata(world.tenant), timeout=20)
    return client, int(answer.results_deleted)


async def test_answers_and_summaries_go_and_the_bill_stays(world: World, start: Start, mistral: MistralServer) -> None:
    settings = {"default_model": MODEL, "mistral_api_key": "a key", "mistral_url": mistral.url}
    client, removed = await purge(world, start, **settings)
    assert removed >= 2, "an answer, and the summary in the cache"
    assert await answers(world) == 0
    assert len(await world.ledger.events()) >= 1
    assert not (await client.summarize()).cached


async def test_a_summary_under_way_keeps_nothing_of_a_document_that_is_erased(
    world: World, client: Client, mistral: MistralServer
) -> None:
    mistral.script("slow:2")
    running = asyncio.create_task(client.summarize(timeout_s=60))
    await until(lambda: mistral.calls > 0)
    assert list(world.extractor.held.values()) == [DOCUMENT]
    async with connected(world.pki, client.target, world.tenant, identity="extractor") as extractor:
        await extractor.stub.PurgeDocument(PURGE, metadata=metadata(world.tenant), timeout=20)
    del world.extractor.documents[world.tenant, DOCUMENT]
    assert (await running).text, "it was paid for, and its caller is answered"
    assert await answers(world) == 0
    assert len(await world.ledger.events()) == 1
    with pytest.raises(NotFound):
        await client.summarize()


async def test_an_answer_is_reused_for_a_near_identical_document_until_its_own_is_erased(
    world: World, client: Client, mistral: MistralServer
) -> None:
    near, story = (
        "documents/" + "e" * 32,
        BEES + " ".join(f"{one}{other}" for one in LETTERS for other in LETTERS) + ". ",
    )
    world.extractor.documents[world.tenant, DOCUMENT] = Script((story,))
    world.extractor.documents[world.tenant, near] = Script((story + "Thank you for reading.",))
    await client.summarize(reuse_similar=True)
    reused = await client.summarize(near, reuse_similar=True)
    assert mistral.calls == 1
    assert reused.consumption.cost.micros == 0
    assert [(part.source_document, part.first_page, part.last_page) for part in reused.reused_parts] == [
        (DOCUMENT, 1, 1)
    ]
    assert {sentence.reused_from for sentence in reused.sentences} == {DOCUMENT}
    assert reused.grounded_share == 1

    async def saving_is_recorded() -> bool:
        return "summarize.similar" in [event[0] for event in await world.ledger.events()]

    await until_so(saving_is_recorded)
    async with connected(world.pki, client.target, world.tenant, identity="extractor") as extractor:
        await extractor.stub.PurgeDocument(PURGE, metadata=metadata(world.tenant), timeout=20)
    again = await client.summarize(near, reuse_similar=True)
    assert not again.cached
    assert not again.reused_parts
    assert mistral.calls == 2


async def test_no_key_may_purge(world: World, client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.stub.PurgeDocument(PURGE, metadata=metadata(world.tenant), timeout=20)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_document_is_held_and_released(world: World, client: Client, document: Script) -> None:
    await client.summarize()
    assert world.extractor.held == {}
    assert world.extractor.processed == [DOCUMENT]
    document.pages = (None,)
    with pytest.raises(Exception, match="No page with text"):
        await client.summarize(focus="something else")
    assert world.extractor.processed == [DOCUMENT] * 2
