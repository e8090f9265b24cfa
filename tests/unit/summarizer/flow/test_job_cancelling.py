"""A job is cancelled at every stage: it stays so, nobody is called any more, and what was bought is in the books."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from services.runtime.errors import Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import HoldState
from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.adapters.memory_schemas import MemorySchemaCache, MemorySchemas
from services.summarizer.domain.job_desk import JobDesk, JobLimits
from services.summarizer.domain.job_orders import Orders
from services.summarizer.domain.job_work import JobWork
from services.summarizer.domain.jobs import EventKind, JobState, Order, Priority, SummarizeWork
from services.summarizer.domain.schema_book import SchemaBook
from services.summarizer.domain.values import Answer, Prompt
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, Flow, options, page
from tests.unit.summarizer.flow.test_job_kinds import Refusing
from tests.unit.summarizer.flow.test_job_worker import Shop


@dataclass
class Halt:
    """Where the work stands still until it is let on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()

    def before(self, owner: Any, name: str) -> None:
        """It stands still before that method."""
        original: Callable[..., Any] = getattr(owner, name)

        async def halted(*args: Any, **kwargs: Any) -> Any:
            await self()
            return await original(*args, **kwargs)

        setattr(owner, name, halted)


class World:
    """A job that summarizes, and everything that it meets on its way."""

    def __init__(self) -> None:
        self.flow = Flow()
        self.flow.pages.put("acme", DOCUMENT, page(1, "One two three four."))
        self.store = MemoryJobs(lambda: datetime.now(UTC))
        self.standing = Refusing()
        schemas = SchemaBook(store=MemorySchemas(), cache=MemorySchemaCache(), counted=lambda _: None)
        desk = JobDesk(
            store=self.store,
            bell=self.store.bells,
            orders=Orders(models=self.flow.models(), schemas=schemas),
            pages=self.flow.pages,
            act_as=act_as,
            limits=JobLimits(most_waiting=1000, max_attempts=3, keep_s=1000),
            now=lambda: datetime.now(UTC),
        )
        self.shop = Shop(self.store, desk)
        self.halt = Halt()

    def work(self) -> None:
        """A worker begins."""
        nobody: Any = None
        do = JobWork(
            standing=self.standing,
            stream=self.flow.stream(),
            fields=nobody,
            ask=nobody,
            pages=self.flow.pages,
            spending=self.store,
            act_as=act_as,
        )
        self.shop.worker(do, lease_s=0.1)

    def stands_still(self, stage: str) -> None:
        flow, halt = self.flow, self.halt
        if stage == "reading":
            pages = flow.pages.pages

            async def halted(*asked: Any) -> AsyncGenerator[Any, None]:
                async for item in pages(*asked):
                    await halt()
                    yield item

            setattr(flow.pages, "pages", halted)  # noqa: B010  # its own method, under another signature
        elif stage == "calling":

            async def hang(prompt: Prompt) -> Answer:
                await halt()
                return await flow.provider.answer(prompt)

            flow.provider.behaviour = hang
        else:
            owner, name = {
                "standing": (self.standing, "check"),
                "turn": (flow.turns, "take"),
                "reserving": (flow.books, "reserve"),
                "counting": (self.store, "taken"),
                "writing": (flow.store, "commit"),
                "settling": (flow.books, "settle"),
                "ending": (self.store, "finish"),
            }[stage]
            halt.before(owner, name)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    world.halt.open.set()
    for stop in world.shop.stops:
        stop.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*world.shop.running)
        await world.flow.tails.close(10)


BEFORE = ("standing", "reading", "turn", "reserving", "counting")
AFTER = ("writing", "settling", "ending")


async def cancelled(world: World, stage: str) -> str:
    """The job, cancelled where the work stands still, when its worker has let go of it and everything went on."""
    world.stands_still(stage)
    job = await world.shop.desk.create(Order(ALICE, (DOCUMENT,), SummarizeWork(options()), Priority.NORMAL, 3))
    world.work()
    async with asyncio.timeout(30):
        await world.halt.reached.wait()
        assert (await world.shop.desk.cancel("acme", job.job_id)).state is JobState.CANCELLED
        if stage == "ending":
            world.halt.open.set()  # whoever writes the end down is not broken off
        while not world.shop.ended:
            await asyncio.sleep(0.005)
        world.halt.open.set()
        await world.flow.tails.close(10)
    assert world.shop.ended == [(job.job_id, "FENCED_OFF")]
    found = await world.shop.desk.get("acme", job.job_id)
    assert (found.state, found.result, found.fault) == (JobState.CANCELLED, None, None)
    assert (await world.shop.kinds(job.job_id)).count(EventKind.ENDED) == 1
    return job.job_id


@pytest.mark.parametrize("stage", BEFORE)
async def test_before_a_call_it_is_not_made_and_nothing_is_held(world: World, stage: str) -> None:
    job_id = await cancelled(world, stage)
    assert world.flow.provider.prompts == []
    assert {hold.state for hold in world.flow.books.holds.values()} <= {HoldState.RELEASED}
    assert (await world.shop.desk.get("acme", job_id)).spent_micros == 0


async def test_amid_a_call_its_money_stands(world: World) -> None:
    job_id = await cancelled(world, "calling")
    assert (len(world.flow.provider.prompts), world.flow.provider.cancelled) == (1, 1)
    assert [hold.state for hold in world.flow.books.holds.values()] == [HoldState.HELD]
    assert (await world.shop.desk.get("acme", job_id)).spent_micros == world.flow.books.held_micros() > 0


@pytest.mark.parametrize("stage", AFTER)
async def test_after_a_call_its_answer_is_kept_and_paid_once(world: World, stage: str) -> None:
    job_id = await cancelled(world, stage)
    assert [hold.state for hold in world.flow.books.holds.values()] == [HoldState.SETTLED]
    paid = world.flow.books.settled_micros()
    assert paid == world.flow.provider.billed_micros() == (await world.shop.desk.get("acme", job_id)).spent_micros > 0
    # Whoever has it done after all pays nothing more.
    await world.shop.desk.retry(ALICE, job_id)
    assert (await world.shop.until(job_id, JobState.SUCCEEDED)).spent_micros == paid
    assert len(world.flow.provider.prompts) == 1


async def test_while_it_waits_and_between_two_attempts(world: World) -> None:
    queued = await world.shop.desk.create(Order(ALICE, (DOCUMENT,), SummarizeWork(options()), Priority.NORMAL, 3))
    assert (await world.shop.desk.cancel("acme", queued.job_id)).state is JobState.CANCELLED
    world.standing.error = Unavailable("PEER_DOWN", "down", retry_after_s=600)
    other = await world.shop.desk.create(Order(ALICE, (DOCUMENT,), SummarizeWork(options()), Priority.NORMAL, 3))
    world.work()
    async with asyncio.timeout(30):
        while not world.shop.ended:
            await asyncio.sleep(0.005)
    assert world.shop.ended == [(other.job_id, "POSTPONED")]
    assert (await world.shop.desk.cancel("acme", other.job_id)).state is JobState.CANCELLED
    assert world.store.places == {}
    assert world.flow.books.holds == {}
