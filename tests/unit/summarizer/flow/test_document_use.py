"""A document is held while a summary is made of it, and nothing is kept of one that is erased meanwhile."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.runtime.errors import FailedPrecondition, NotFound, PagemeshError, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import MemoryPages
from services.summarizer.domain.ports import PageFailed
from services.summarizer.domain.purge import PurgeDocument
from services.summarizer.domain.values import Answer, Prompt, Summary
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, Flow, options, page


@pytest.fixture
async def flow() -> AsyncIterator[Flow]:
    made = Flow()
    made.pages.put(ALICE.tenant, DOCUMENT, page(1, "The cat sat on the mat."))
    yield made
    await made.tails.close(5)


async def ask(flow: Flow) -> Summary:
    with act_as(ALICE):
        return await flow.summarize()(ALICE, DOCUMENT, options())


async def test_it_is_held_while_the_work_lasts_and_processed_then(flow: Flow) -> None:
    held: list[dict[str, str]] = []

    async def look(prompt: Prompt) -> Answer:
        held.append(dict(flow.pages.holds))
        return await flow.provider.answer(prompt)

    flow.provider.behaviour = look
    await ask(flow)
    assert [list(found.values()) for found in held] == [[DOCUMENT]]
    assert flow.pages.holds == {}
    assert flow.pages.processed == [DOCUMENT]


async def test_an_answer_from_the_cache_holds_nothing(flow: Flow) -> None:
    await ask(flow)
    assert (await ask(flow)).cached
    assert flow.pages.processed == [DOCUMENT]


@pytest.mark.parametrize(
    ("error", "processed"),
    [
        (Unavailable("PROVIDER_UNAVAILABLE", "down"), False),
        (FailedPrecondition("PRICE_MISSING", "no price"), False),
        (FailedPrecondition("DOCUMENT_CORRUPT", "damaged"), True),
        (FailedPrecondition("TOO_MANY_PAGES", "long"), True),
        (FailedPrecondition("DOCUMENT_ENCRYPTED", "locked"), False),
    ],
)
async def test_only_what_the_document_is_to_blame_for_is_its_end(
    flow: Flow, error: PagemeshError, processed: bool
) -> None:
    async def fail(_: Prompt) -> Answer:
        raise error

    flow.provider.behaviour = fail
    with pytest.raises(type(error)):
        await ask(flow)
    assert flow.pages.holds == {}
    assert flow.pages.processed == ([DOCUMENT] if processed else [])


async def test_a_document_that_no_page_can_be_read_of_has_been_processed(flow: Flow) -> None:
    flow.pages.put(ALICE.tenant, DOCUMENT, PageFailed(1, "PAGE_CORRUPT"))
    with pytest.raises(FailedPrecondition):
        await ask(flow)
    assert flow.pages.processed == [DOCUMENT]


async def test_a_caller_who_leaves_gives_the_hold_back(flow: Flow) -> None:
    asked = asyncio.Event()

    async def hang(_: Prompt) -> Answer:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    flow.provider.behaviour = hang
    task = asyncio.create_task(ask(flow))
    await asked.wait()
    task.cancel()
    await asyncio.wait([task])
    async with asyncio.timeout(5):
        while flow.pages.holds:
            await asyncio.sleep(0)
    assert flow.pages.processed == []


async def test_an_extractor_that_misses_the_release_costs_no_summary(flow: Flow) -> None:
    class Deaf(MemoryPages):
        async def release(self, document: str, hold_id: str, *, processed: bool) -> None:
            raise Unavailable("EXTRACTOR_UNAVAILABLE", "down")

    flow.pages = Deaf()
    flow.pages.put(ALICE.tenant, DOCUMENT, page(1, "The cat sat on the mat."))
    assert (await ask(flow)).text


async def test_nothing_is_kept_of_a_document_that_is_erased_while_it_is_summarised(flow: Flow) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(prompt: Prompt) -> Answer:
        asked.set()
        await go_on.wait()
        return await flow.provider.answer(prompt)

    flow.provider.behaviour = slow
    task = asyncio.create_task(ask(flow))
    await asked.wait()
    flow.pages.delete(ALICE.tenant, DOCUMENT)
    purge = PurgeDocument(results=flow.store, cache=flow.cache)
    assert await purge(ALICE.tenant, DOCUMENT) == 0
    go_on.set()
    assert (await task).text  # it was paid for, and its caller is answered
    assert flow.books.settled_micros() == flow.provider.billed_micros() > 0
    assert await purge(ALICE.tenant, DOCUMENT) == 0, "nothing was kept"
    with pytest.raises(NotFound):
        await ask(flow)


async def test_a_purge_erases_answers_and_summaries(flow: Flow) -> None:
    await ask(flow)
    assert await PurgeDocument(results=flow.store, cache=flow.cache)(ALICE.tenant, DOCUMENT) == 2
    assert not (await ask(flow)).cached
    assert len(flow.provider.prompts) == 2, "it is asked for anew"
