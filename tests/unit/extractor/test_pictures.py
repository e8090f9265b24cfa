"""Pictures: what is drawn once, what is kept, what is tried again, and what waiting callers weigh."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from services.extractor.adapters.memory import MemoryDocuments, MemoryObjectStore
from services.extractor.adapters.memory_pictures import MemoryDrawnPages
from services.extractor.domain import drawn as rules
from services.extractor.domain.drawn import DrawnKey
from services.extractor.domain.pages import (
    DocumentFault,
    FailedPage,
    Loss,
    PageFault,
    ParserLost,
    Picture,
    PictureFormat,
    Refused,
)
from services.extractor.domain.pictures import Drawing, ImageOf, PictureLimits, Pictures
from services.extractor.domain.ports import PictureTask, ReadableFile
from services.runtime.errors import FailedPrecondition, NotFound, PagemeshError, ResourceExhausted, Unavailable
from tests.unit.extractor.scripted import StillClock, a_document

Outcome = Picture | Refused | FailedPage | ParserLost
PICTURE = Picture(PictureFormat.JPEG, 10, 20, b"\xff\xd8\xff drawn")
DRAWING = Drawing("acme", a_document().name, 0, 0, PictureFormat.JPEG, 0)
IN_HAND_BYTES = 400


@dataclass
class ScriptedPictures:
    """Answers with what `script(task, how many came before)` says; a ParserLost is raised. Waits for `gate`."""

    script: Callable[[PictureTask, int], Outcome]
    tasks: list[PictureTask] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def picture(self, task: PictureTask) -> Picture | Refused | FailedPage:
        self.tasks.append(task)
        number = len(self.tasks) - 1
        await self.gate.wait()
        outcome = self.script(task, number)
        if isinstance(outcome, ParserLost):
            raise outcome
        return outcome


class CountingStore(MemoryObjectStore):
    opened = 0

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[ReadableFile]:
        self.opened += 1
        async with super().open(key) as file:
            yield file


@dataclass
class World:
    pictures: Pictures
    store: CountingStore
    parser: ScriptedPictures
    documents: MemoryDocuments
    drawn: MemoryDrawnPages
    clock: StillClock

    async def render(self, drawing: Drawing = DRAWING, *, remaining_s: float | None = None) -> Picture:
        async with self.pictures.page(drawing, remaining_s=lambda: remaining_s) as picture:
            return picture

    async def image(self, image: ImageOf) -> Picture:
        async with self.pictures.image(image, remaining_s=lambda: None) as picture:
            return picture


async def world_of(tmp_path: Path, *outcomes: Outcome) -> World:
    """A world with one document, whose parser answers so, the last one for ever."""
    documents, store, clock = MemoryDocuments(), CountingStore(), StillClock()
    source = tmp_path / "source"
    source.write_bytes(b"%PDF-")
    document = a_document()
    await store.put(f"acme/{document.sha256}", source)
    async with documents.locked("acme", document.id) as record:
        await record.insert(document)
    answers: Sequence[Outcome] = outcomes or (PICTURE,)
    parser = ScriptedPictures(lambda _, number: answers[min(number, len(answers) - 1)])
    parser.gate.set()
    drawn = MemoryDrawnPages(documents)
    limits = PictureLimits(queue_wait_s=60, in_hand_bytes=IN_HAND_BYTES)
    pictures = Pictures(repository=documents, store=store, parser=parser, drawn=drawn, clock=clock, limits=limits)
    return World(pictures, store, parser, documents, drawn, clock)


async def test_zero_stands_for_what_the_contract_says(tmp_path: Path) -> None:
    world = await world_of(tmp_path)
    assert await world.render() == PICTURE
    (task,) = world.parser.tasks
    assert (task.page, task.dpi, task.jpeg_quality, task.max_side_px, task.index) == (1, 200, 95, 4096, None)


async def test_a_page_that_was_drawn_is_not_drawn_again(tmp_path: Path) -> None:
    world = await world_of(tmp_path)
    await world.render()
    assert await world.render(replace(DRAWING, page=1, dpi=200, jpeg_quality=95)) == PICTURE
    assert len(world.parser.tasks) == 1
    await world.render(replace(DRAWING, dpi=201))
    assert len(world.parser.tasks) == 2


async def test_those_who_ask_for_the_same_meanwhile_wait_for_one(tmp_path: Path) -> None:
    world = await world_of(tmp_path)
    world.parser.gate.clear()
    asking = [asyncio.ensure_future(world.render()) for _ in range(5)]
    other = asyncio.ensure_future(world.render(replace(DRAWING, page=2)))
    while len(world.parser.tasks) < 2:
        await asyncio.sleep(0)
    world.parser.gate.set()
    assert await asyncio.gather(*asking, other) == [PICTURE] * 6
    assert sorted(task.page for task in world.parser.tasks) == [1, 2]


async def test_pages_that_are_drawn_at_a_time_share_their_file(tmp_path: Path) -> None:
    world = await world_of(tmp_path)
    world.parser.gate.clear()
    asking = [asyncio.ensure_future(world.render(replace(DRAWING, page=page))) for page in range(1, 5)]
    while len(world.parser.tasks) < 4:
        await asyncio.sleep(0)
    world.parser.gate.set()
    await asyncio.gather(*asking)
    assert world.store.opened == 1
    await world.render(replace(DRAWING, page=5))
    assert world.store.opened == 2


async def test_a_page_that_cannot_be_drawn_is_tried_once_for_all_who_wait(tmp_path: Path) -> None:
    world = await world_of(tmp_path, ParserLost(Loss.TIMEOUT), ParserLost(Loss.TIMEOUT), PICTURE)
    world.parser.gate.clear()
    asking = [asyncio.ensure_future(world.render()) for _ in range(5)]
    while not world.parser.tasks:
        await asyncio.sleep(0)
    world.parser.gate.set()
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert [getattr(error, "reason", None) for error in told] == ["PAGE_TIMEOUT"] * 5
    assert len(world.parser.tasks) == 2
    assert await world.render() == PICTURE, "whoever comes later tries again"


async def test_who_leaves_first_leaves_the_picture_to_the_next(tmp_path: Path) -> None:
    world = await world_of(tmp_path)
    world.parser.gate.clear()
    first, second = (asyncio.ensure_future(world.render()) for _ in range(2))
    while not world.parser.tasks:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    world.parser.gate.set()
    assert await second == PICTURE
    assert len(world.parser.tasks) == 2


async def test_what_a_password_opened_is_neither_kept_nor_given_without(tmp_path: Path) -> None:
    encrypted = Refused(DocumentFault.ENCRYPTED)
    world = await world_of(tmp_path, PICTURE, encrypted)
    await world.render(replace(DRAWING, password="secret"))
    with pytest.raises(FailedPrecondition) as told:
        await world.render()
    assert told.value.reason == "DOCUMENT_ENCRYPTED"
    assert "secret" not in repr(world.parser.tasks)


async def test_a_large_picture_is_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.extractor.domain.pictures.MAX_KEPT_BYTES", len(PICTURE.content) - 1)
    world = await world_of(tmp_path)
    await world.render()
    await world.render()
    assert len(world.parser.tasks) == 2


async def test_a_picture_that_cannot_be_kept_is_given_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await world_of(tmp_path)

    async def refuse(*_: object, **__: object) -> None:
        raise Unavailable("DATABASE_UNAVAILABLE", "down")

    monkeypatch.setattr(world.drawn, "keep", refuse)
    assert await world.render() == PICTURE


@pytest.mark.parametrize(
    ("loss", "reason"),
    [(Loss.TIMEOUT, "PAGE_TIMEOUT"), (Loss.MEMORY, "PAGE_MEMORY"), (Loss.CRASH, "PAGE_CRASHED")],
)
async def test_a_page_that_ends_its_process_is_tried_once_more_alone(tmp_path: Path, loss: Loss, reason: str) -> None:
    world = await world_of(tmp_path, ParserLost(loss), PICTURE)
    assert await world.render() == PICTURE
    assert [task.alone for task in world.parser.tasks] == [False, True]
    world = await world_of(tmp_path, ParserLost(loss))
    with pytest.raises(FailedPrecondition) as told:
        await world.render()
    assert told.value.reason == reason
    assert len(world.parser.tasks) == 2


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(FailedPage(1, fault), fault.value) for fault in PageFault]
    + [(Refused(fault), fault.value) for fault in DocumentFault],
)
async def test_what_a_parser_refuses_is_told_and_not_kept(tmp_path: Path, outcome: Outcome, reason: str) -> None:
    world = await world_of(tmp_path, outcome, PICTURE)
    with pytest.raises(FailedPrecondition) as told:
        await world.render()
    assert told.value.reason == reason
    assert await world.render() == PICTURE


async def test_nobody_waits_longer_than_the_call_may_take(tmp_path: Path) -> None:
    world = await world_of(tmp_path)
    await world.render(remaining_s=3)
    await world.render(replace(DRAWING, page=2))
    assert [task.wait_s for task in world.parser.tasks] == [3, 60]


async def test_another_tenants_document_is_not_there(tmp_path: Path) -> None:
    world = await world_of(tmp_path)
    await world.render()
    for ask in (
        world.render(replace(DRAWING, tenant="other")),
        world.image(ImageOf("other", DRAWING.name, 1, 0)),
        world.render(replace(DRAWING, name="documents/" + "0" * 32)),
    ):
        with pytest.raises(NotFound):
            await ask


async def test_an_image_is_asked_for_by_its_index_and_not_kept(tmp_path: Path) -> None:
    world = await world_of(tmp_path)
    for _ in range(2):
        await world.image(ImageOf("acme", DRAWING.name, 0, 7))
    assert [(task.page, task.index) for task in world.parser.tasks] == [(1, 7)] * 2


async def test_what_is_in_hand_is_bounded_for_one_tenant_and_for_all(tmp_path: Path) -> None:
    heavy = replace(PICTURE, content=bytes(IN_HAND_BYTES // 4))
    world = await world_of(tmp_path, heavy)
    for number in range(4):
        document = a_document(tenant=f"tenant-{number}")
        async with world.documents.locked(document.tenant, document.id) as record:
            await record.insert(document)
        key = DrawnKey(document.tenant, document.id, 1, 200, PictureFormat.JPEG, 95)
        await world.drawn.keep(key, heavy, now=world.clock.now())
    async with AsyncExitStack() as held:

        async def hold(tenant: str) -> None:
            drawing = replace(DRAWING, tenant=tenant)
            await held.enter_async_context(world.pictures.page(drawing, remaining_s=lambda: None))

        await hold("tenant-0")
        with pytest.raises(ResourceExhausted) as own:
            await hold("tenant-0")
        for number in (1, 2, 3):
            await hold(f"tenant-{number}")
        with pytest.raises(ResourceExhausted) as all_in_all:
            await hold("acme")
        for told in (own, all_in_all):
            assert (told.value.reason, told.value.retry_after_s) == ("TOO_MANY_PICTURES", 1.0)
    assert await world.render() == heavy


async def test_those_who_were_let_in_together_hold_no_more_than_the_others(tmp_path: Path) -> None:
    heavy = replace(PICTURE, content=bytes(IN_HAND_BYTES // 4))
    world = await world_of(tmp_path, heavy)
    world.parser.gate.clear()
    async with AsyncExitStack() as held:

        async def hold(page: int) -> None:
            drawing = replace(DRAWING, page=page)
            await held.enter_async_context(world.pictures.page(drawing, remaining_s=lambda: None))

        asking = [asyncio.ensure_future(hold(page)) for page in range(1, 6)]
        while len(world.parser.tasks) < 5:
            await asyncio.sleep(0)
        world.parser.gate.set()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert outcomes.count(None) == 1
        refused = [outcome for outcome in outcomes if isinstance(outcome, ResourceExhausted)]
        assert [refusal.reason for refusal in refused] == ["TOO_MANY_PICTURES"] * 4
    assert await world.render(replace(DRAWING, page=2)) == heavy


async def test_what_was_kept_for_a_day_is_removed(tmp_path: Path) -> None:
    world = await world_of(tmp_path)
    await world.render()
    world.clock.time += rules.KEPT_FOR
    await world.pictures.expire()
    await world.render()
    assert len(world.parser.tasks) == 2


async def test_errors_of_a_parser_pass(tmp_path: Path) -> None:
    class Busy(ScriptedPictures):
        async def picture(self, task: PictureTask) -> Picture | Refused | FailedPage:
            raise ResourceExhausted("PARSER_BUSY", "busy")

    world = await world_of(tmp_path)
    world.pictures._parser = Busy(lambda *_: PICTURE)
    with pytest.raises(PagemeshError) as told:
        await world.render()
    assert told.value.reason == "PARSER_BUSY"
