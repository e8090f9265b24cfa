"""Who uses a document, and what the end of it means to an ephemeral one."""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest

from services.extractor.domain.documents import Document, document_id, not_found
from services.extractor.domain.extract import Extraction, ExtractPages
from services.extractor.domain.keeping import Lease
from services.extractor.domain.pages import ExtractionEnd, ExtractionEvent, Page, Part
from services.extractor.domain.receipts import Cause
from services.extractor.domain.retention import Retention, Term
from services.extractor.domain.stored_pages import Looked, StoredDocument
from services.extractor.domain.uses import LEASE, ProcessPages
from services.runtime.errors import FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from tests.unit.extractor.keeping import World
from tests.unit.extractor.scripted import NOW

HOUR = dt.timedelta(hours=1)
HOLD = "00000000-0000-4000-8000-00000000abcd"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def ephemeral(world: World) -> Document:
    return await world.add(1, term=Term(Retention.EPHEMERAL, NOW + HOUR))


def processing(world: World, error: Exception | None = None) -> ProcessPages:
    """Extraction of one page, or one that fails."""

    class Extract:
        async def look(self, extraction: Extraction) -> Looked:
            document = await world.documents.get(extraction.tenant, document_id(extraction.name))
            if document is None:
                raise not_found(extraction.name)
            return Looked(document, StoredDocument())

        async def __call__(
            self, extraction: Extraction, *, remaining_s: Callable[[], float | None], looked: Looked
        ) -> AsyncGenerator[Sequence[ExtractionEvent], None]:
            if error is not None:
                raise error
            yield [Page(1, b"")]
            yield [ExtractionEnd(1, 0)]

    return ProcessPages(uses=world.uses, extract=cast(ExtractPages, Extract()))


async def run(pages: ProcessPages, document: Document, *, processes: bool = True) -> int:
    extraction = Extraction(document.tenant, document.name, 0, 0, Part.TEXT)
    return len([event async for event in pages(extraction, remaining_s=lambda: None, processes=processes)])


async def is_gone(world: World, document: Document) -> bool:
    try:
        await world.library.get("acme", document.name)
    except NotFound:
        return True
    return False


async def test_an_ephemeral_document_is_gone_when_its_extraction_has_ended(world: World) -> None:
    document = await ephemeral(world)
    assert await run(processing(world), document) == 2
    assert await is_gone(world, document)
    with pytest.raises(NotFound):
        await run(processing(world), document)
    await world.worker.round()
    assert world.store.objects == {}
    (receipt,) = await world.receipts()
    assert (receipt.cause, receipt.actor) == (Cause.PROCESSED, "")


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (FailedPrecondition("DOCUMENT_CORRUPT", "no"), True),
        (FailedPrecondition("TOO_MANY_PAGES", "no"), True),
        (FailedPrecondition("DOCUMENT_ENCRYPTED", "no"), False),
        (FailedPrecondition("DOCUMENT_WRONG_PASSWORD", "no"), False),
        (ResourceExhausted("PARSER_BUSY", "no"), False),
        (Unavailable("STORE_UNAVAILABLE", "no"), False),
    ],
)
async def test_a_file_that_cannot_be_read_has_been_processed_and_a_call_that_failed_has_not(
    world: World, error: Exception, ended: bool
) -> None:
    document = await ephemeral(world)
    with pytest.raises(type(error)):
        await run(processing(world, error), document)
    assert await is_gone(world, document) == ended


async def test_a_caller_who_leaves_may_come_back(world: World) -> None:
    document = await ephemeral(world)
    extraction = Extraction("acme", document.name, 0, 0, Part.TEXT)
    async with aclosing(processing(world)(extraction, remaining_s=lambda: None, processes=True)) as events:
        await anext(events)
    assert not await is_gone(world, document)
    await run(processing(world), document)
    assert await is_gone(world, document)


@pytest.mark.parametrize("retention", [Retention.TEMPORARY, Retention.KEPT])
async def test_what_is_kept_is_not_erased_by_processing(world: World, retention: Retention) -> None:
    document = await world.add(1, term=Term(retention, NOW + HOUR))
    await run(processing(world), document)
    await world.worker.round()
    assert not await is_gone(world, document)


async def test_pages_that_a_service_reads_end_nothing_and_its_release_does(world: World) -> None:
    document = await ephemeral(world)
    await world.uses.hold("acme", document.name, HOLD, HOUR / 4)
    await run(processing(world), document, processes=False)
    await world.worker.round()
    assert not await is_gone(world, document)
    await world.uses.release("acme", document.name, HOLD, processed=True)
    assert await is_gone(world, document)


async def test_an_ephemeral_document_waits_for_the_last_of_its_users(world: World) -> None:
    document = await ephemeral(world)
    await world.uses.hold("acme", document.name, HOLD, HOUR / 4)
    await run(processing(world), document)
    await world.worker.round()
    assert not await is_gone(world, document)
    await world.uses.release("acme", document.name, HOLD, processed=False)
    await world.worker.round()
    assert await is_gone(world, document)


async def test_a_hold_needs_a_document(world: World) -> None:
    document = await ephemeral(world)
    with pytest.raises(NotFound):
        await world.uses.hold("other", document.name, HOLD, HOUR)
    await world.uses.release("acme", "documents/" + "0" * 32, HOLD, processed=True)


async def test_a_use_that_outlasts_its_document_keeps_it(world: World) -> None:
    document = await world.add(1, term=Term(Retention.KEPT, NOW + HOUR))
    async with world.uses.of("acme", document.name):
        await world.uses.renew()
        world.clock.time = NOW + HOUR - dt.timedelta(seconds=1)
        await world.uses.renew()
        world.clock.time = NOW + HOUR
        await world.worker.round()
        assert not await is_gone(world, document)
    await world.worker.round()
    assert await is_gone(world, document)


async def test_a_use_that_begins_shortly_before_the_end_keeps_its_document_too(world: World) -> None:
    document = await world.add(1, term=Term(Retention.KEPT, NOW + LEASE / 2))
    async with world.uses.of("acme", document.name):
        world.clock.time = NOW + LEASE / 2
        await world.worker.round()
        assert not await is_gone(world, document)


async def test_a_use_of_what_stays_writes_nothing_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unwanted(lease: Lease, **_: object) -> bool:
        pytest.fail("a row was written")

    document = await world.add(1, term=Term(Retention.KEPT, NOW + HOUR))
    monkeypatch.setattr(world.documents, "hold", unwanted)
    monkeypatch.setattr(world.documents, "release", unwanted)
    async with world.uses.of("acme", document.name):
        pass


async def test_a_use_that_ends_while_leases_are_renewed_leaves_no_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its own lease is being renewed at the time or that of another one."""
    held, asked, go = set[str](), asyncio.Queue[str](), asyncio.Queue[None]()
    first, second = [await world.add(number, term=Term(Retention.KEPT, NOW + HOUR)) for number in (1, 2)]

    async def hold(lease: Lease, **_: object) -> bool:
        asked.put_nowait(lease.document_id)
        await go.get()
        held.add(lease.document_id)
        return True

    async def release(lease: Lease, **_: object) -> None:
        held.discard(lease.document_id)

    monkeypatch.setattr(world.documents, "hold", hold)
    monkeypatch.setattr(world.documents, "release", release)
    leave = {document.id: asyncio.Event() for document in (first, second)}

    async def use(document: Document) -> None:
        async with world.uses.of("acme", document.name):
            await leave[document.id].wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        users = [group.create_task(use(document)) for document in (first, second)]
        await asyncio.sleep(0)
        renewing = group.create_task(world.uses.renew())
        assert await asked.get() == first.id
        for each in leave.values():
            each.set()
        await asyncio.wait([users[1]])
        for _ in range(5):
            go.put_nowait(None)
        await asyncio.wait([renewing, users[0]])
    assert held == set()


async def test_a_document_that_is_uploaded_anew_while_it_is_used_stays(world: World) -> None:
    first = (await world.upload(retention=Retention.EPHEMERAL)).document
    await world.uses.hold("acme", first.name, HOLD, HOUR / 4)
    await world.upload(retention=Retention.TEMPORARY)
    await world.uses.release("acme", first.name, HOLD, processed=True)
    await world.worker.round()
    assert not await is_gone(world, first)
