"""kill -9 at every step between the provider and the reply: the provider's bill stays in the books, and no committed
answer is paid again."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import psycopg
import pytest

from pagemesh.summarizer.v1 import embedding_pb2
from pagemesh_cli.stack.ports import pick_free_port
from services.runtime.errors import PagemeshError, Unavailable
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import (
    BEES,
    DOCUMENT,
    MODEL,
    Client,
    World,
    connected,
    metadata,
    until,
    until_so,
)
from tests.integration.summarizer.peers import Script
from tests.integration.summarizer.service_process import ServiceProcess, environment

pytestmark = pytest.mark.usefixtures("document")


class Service:
    """The summarizer as a process that may be killed and started again at the same address."""

    def __init__(self, process: ServiceProcess, client: Client) -> None:
        self.process, self.client = process, client

    async def start(self) -> None:
        self.process.start()
        await until_so(self.process.ready)

    async def ask_until_killed(self) -> "asyncio.Task[None]":
        """Asks in the background; the answer does not matter, for the service will be killed."""
        return asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        with pytest.raises(PagemeshError):
            await self.client.summarize()


@pytest.fixture
async def service(world: World, mistral: MistralServer, tmp_path: Path) -> AsyncIterator[Service]:
    grpc_port, http_port = pick_free_port(), pick_free_port()
    settings = environment(
        world.environment,
        grpc_listen=f"127.0.0.1:{grpc_port}",
        http_listen=f"127.0.0.1:{http_port}",
        default_model=MODEL,
        mistral_api_key="a key",
        mistral_url=mistral.url,
        embedding_model="mistral/mistral-embed",
    )
    process = ServiceProcess(settings, http_port=http_port, log=tmp_path / "summarizer.log")
    async with AsyncExitStack() as stack:
        stack.callback(process.kill)
        target = f"127.0.0.1:{grpc_port}"
        client = await stack.enter_async_context(connected(world.pki, target, world.tenant))
        started = Service(process, client)
        await started.start()
        yield started


async def outbox_depth(world: World) -> int:
    query = "SELECT count(*) FROM summarizer.outbox WHERE tenant = %s"
    async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
        row = await (await connection.execute(query, (world.tenant,))).fetchone()
    assert row is not None
    return int(row[0])


async def committed(world: World) -> int:
    async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (world.tenant,))
        row = await (await connection.execute("SELECT count(*) FROM summarizer.results")).fetchone()
    assert row is not None
    return int(row[0])


async def states(world: World) -> list[str]:
    return sorted((await world.ledger.holds()).values())


async def paid_calls(world: World) -> list[tuple[str, int, int, int]]:
    """The records of calls; answers from the cache are no calls."""
    return [event for event in await world.ledger.events() if event[1]]


def is_eventually(ask: Callable[[], Awaitable[object]], wanted: object) -> Awaitable[None]:
    async def holds() -> bool:
        return await ask() == wanted

    return until_so(holds)


async def test_between_reservation_and_answer(service: Service, world: World, mistral: MistralServer) -> None:
    mistral.script("hang")
    asking = await service.ask_until_killed()
    await until(lambda: mistral.calls == 1)
    service.process.kill()
    await asking
    await service.start()
    await service.client.summarize()
    # Nobody can say whether the first call is on the bill: its money stays set aside.
    assert await states(world) == ["HELD", "SETTLED"]


async def test_between_answer_and_commit(service: Service, world: World, mistral: MistralServer) -> None:
    mistral.script("slow:0.5")
    asking = await service.ask_until_killed()
    await until(lambda: mistral.calls == 1)
    world.wires["postgres"].freeze(answers=False)
    await until(lambda: mistral.books.output_tokens > 0 and world.wires["postgres"].holding)
    service.process.kill()
    await asking
    assert await committed(world) == 0
    assert await states(world) == ["HELD"]
    world.wires["postgres"].mend()
    await service.start()
    await service.client.summarize()
    assert mistral.calls == 2
    assert await states(world) == ["HELD", "SETTLED"]
    (paid,) = await paid_calls(world)
    assert 2 * paid[1] == mistral.books.input_tokens


async def test_between_commit_and_settlement(service: Service, world: World, mistral: MistralServer) -> None:
    mistral.script("slow:0.5")
    asking = await service.ask_until_killed()
    await until(lambda: mistral.calls == 1)
    world.wires["ledger"].freeze(answers=False)
    await is_eventually(lambda: outbox_depth(world), 1)
    service.process.kill()
    await asking
    assert await states(world) == ["HELD"]
    # What the dead process had sent is lost with its connection.
    world.wires["ledger"].cut()
    world.wires["ledger"].mend()
    await service.start()
    await is_eventually(lambda: states(world), ["SETTLED"])
    await is_eventually(lambda: outbox_depth(world), 0)
    summary = await service.client.summarize()
    assert (mistral.calls, summary.consumption.provider_calls) == (1, 0)
    (paid,) = await paid_calls(world)
    assert paid[1:3] == (mistral.books.input_tokens, mistral.books.output_tokens)


async def test_between_settlement_and_reply(service: Service, world: World, mistral: MistralServer) -> None:
    mistral.script("slow:0.5")
    asking = await service.ask_until_killed()
    await until(lambda: mistral.calls == 1)
    world.wires["ledger"].freeze(requests=False)
    await is_eventually(lambda: states(world), ["SETTLED"])
    service.process.kill()
    await asking
    assert await outbox_depth(world) == 1
    world.wires["ledger"].cut()
    world.wires["ledger"].mend()
    await service.start()
    await is_eventually(lambda: outbox_depth(world), 0)
    summary = await service.client.summarize()
    assert (mistral.calls, summary.consumption.provider_calls) == (1, 0)
    (paid,) = await paid_calls(world)
    assert paid[1:3] == (mistral.books.input_tokens, mistral.books.output_tokens)


async def test_at_any_moment(service: Service, world: World, mistral: MistralServer) -> None:
    chance = random.Random(7)
    pages = tuple(f"Chapter {n} begins here and says something. " + BEES * 5 for n in range(1, 161))
    world.extractor.documents[world.tenant, DOCUMENT] = Script(pages)
    for _ in range(3):
        mistral.script(*(f"slow:{chance.uniform(0.02, 0.2)}" for _ in range(40)))
        asking = await service.ask_until_killed()
        before, calls = mistral.calls, chance.randrange(1, 4)
        await until(lambda before=before, calls=calls: mistral.calls >= before + calls)  # type: ignore[misc]
        await asyncio.sleep(chance.uniform(0, 0.1))  # somewhere in the work for an answer
        service.process.kill()
        await asking
        await service.start()
    summary = await service.client.summarize()
    assert summary.sentences
    await is_eventually(lambda: outbox_depth(world), 0)
    found = await states(world)
    paid = await paid_calls(world)
    assert len(paid) == found.count("SETTLED") == await committed(world)
    assert set(found) <= {"SETTLED", "HELD"}
    # Every call on the bill is settled or held, and what is settled is on the bill.
    assert len(paid) <= mistral.calls <= len(found)
    assert sum(event[1] for event in paid) <= mistral.books.input_tokens
    calls = mistral.calls
    mistral.script()
    again = await service.client.summarize()
    assert again.cached
    assert mistral.calls == calls


async def test_amid_a_document_that_is_embedded(service: Service, world: World, mistral: MistralServer) -> None:
    pages = tuple(f"Chapter {n} begins here and says something. " + BEES * 3 for n in range(1, 61))
    world.extractor.documents[world.tenant, DOCUMENT] = Script(pages)
    mistral.script("ok", "ok", "slow:0.3", "hang")
    embed, request = service.client.stub.EmbedDocument, embedding_pb2.EmbedDocumentRequest(document=DOCUMENT)
    asking = embed(request, timeout=30, metadata=metadata(world.tenant))
    await until(lambda: mistral.calls >= 4)
    await is_eventually(lambda: committed(world), 3)
    service.process.kill()
    with pytest.raises(grpc.aio.AioRpcError):
        await asking
    assert not world.extractor.vectors
    bought, calls = await committed(world), mistral.calls
    await service.start()
    done = await embed(request, timeout=30, metadata=metadata(world.tenant))
    assert done.page_count == len(pages)
    assert done.consumption.provider_calls == mistral.calls - calls == await committed(world) - bought
    await is_eventually(lambda: outbox_depth(world), 0)
    found = await states(world)
    assert found.count("SETTLED") == await committed(world)
    assert len(found) <= mistral.calls


async def test_being_asked_to_stop_ends_what_was_begun(service: Service, world: World, mistral: MistralServer) -> None:
    mistral.script("slow:1")
    asking = asyncio.create_task(service.client.summarize())
    await until(lambda: mistral.calls == 1)
    service.process.terminate()
    assert (await asking).consumption.settled
    await until(lambda: service.process.exit_code() is not None)
    assert service.process.exit_code() == 0
    assert await states(world) == ["SETTLED"]
    assert await outbox_depth(world) == 0


async def test_a_run_that_takes_too_long_to_stop_is_told_so(
    service: Service, world: World, mistral: MistralServer
) -> None:
    mistral.script("hang")
    asking = asyncio.create_task(service.client.summarize())
    await until(lambda: mistral.calls == 1)
    service.process.terminate()
    with pytest.raises((Unavailable, PagemeshError)):
        await asking
    await until(lambda: service.process.exit_code() is not None)
    assert service.process.exit_code() == 0
    assert await states(world) == ["HELD"]
