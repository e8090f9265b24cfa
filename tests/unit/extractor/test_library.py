"""Describing, listing, and changing how long something is kept."""

import datetime as dt
from pathlib import Path

import pytest

from services.extractor.domain.retention import KEPT_FOR, TEMPORARY_FOR, Change, Retention, Term
from services.runtime.errors import InvalidArgument, NotFound
from tests.unit.extractor.keeping import World
from tests.unit.extractor.scripted import NOW

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def listed(world: World, page_size: int) -> list[str]:
    names: list[str] = []
    token = ""
    while True:
        part = await world.library.list("acme", page_size=page_size, page_token=token)
        assert len(part.documents) <= page_size
        names += [document.name for document in part.documents]
        token = part.next_page_token
        if not token:
            return names


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 8])
async def test_a_list_has_everything_once_newest_first(world: World, page_size: int) -> None:
    made = [await world.add(number) for number in range(1, 8)]
    await world.add(99, tenant="other")
    assert await listed(world, page_size) == [document.name for document in reversed(made)]


async def test_documents_of_one_moment_are_all_listed(world: World) -> None:
    made = {(await world.add(number, at=NOW)).name for number in range(1, 6)}
    names = await listed(world, 2)
    assert len(names) == 5
    assert set(names) == made


async def test_a_list_goes_on_where_it_was_whatever_comes_and_goes(world: World) -> None:
    made = [await world.add(number) for number in range(1, 7)]
    first = await world.library.list("acme", page_size=2, page_token="")
    await world.add(50)
    await world.eraser.delete("acme", made[4].name, actor="me")  # the last one that was listed
    rest = await world.library.list("acme", page_size=10, page_token=first.next_page_token)
    assert [document.name for document in rest.documents] == [document.name for document in reversed(made[:4])]


async def test_another_tenants_document_is_not_there(world: World) -> None:
    document = await world.add(1)
    change = Change(names_retention=True, names_expire_time=False, retention=Retention.TEMPORARY, expire_time=None)
    with pytest.raises(NotFound):
        await world.library.get("other", document.name)
    with pytest.raises(NotFound):
        await world.library.update("other", document.name, change)
    assert await world.library.get("acme", document.name) == document


TEMPORARY = Term(Retention.TEMPORARY, NOW + HOUR)
KEPT = Term(Retention.KEPT, NOW + HOUR)


@pytest.mark.parametrize(
    ("before", "retention", "expire_time", "after"),
    [
        (TEMPORARY, Retention.KEPT, ..., Term(Retention.KEPT, NOW + KEPT_FOR)),
        (TEMPORARY, Retention.KEPT, NOW + 9 * HOUR, Term(Retention.KEPT, NOW + 9 * HOUR)),
        (TEMPORARY, Retention.EPHEMERAL, ..., Term(Retention.EPHEMERAL, NOW + HOUR)),
        (KEPT, Retention.TEMPORARY, ..., Term(Retention.TEMPORARY, NOW + TEMPORARY_FOR)),
        (KEPT, None, ..., Term(Retention.TEMPORARY, NOW + TEMPORARY_FOR)),
        (KEPT, ..., NOW + 9 * HOUR, Term(Retention.KEPT, NOW + 9 * HOUR)),
        (KEPT, ..., NOW + dt.timedelta(seconds=1), Term(Retention.KEPT, NOW + dt.timedelta(seconds=1))),
        (KEPT, ..., None, Term(Retention.KEPT, NOW + KEPT_FOR)),
        (KEPT, ..., NOW, "EXPIRE_TIME_OUT_OF_RANGE"),
        (KEPT, ..., NOW + dt.timedelta(days=367), "EXPIRE_TIME_OUT_OF_RANGE"),
        (TEMPORARY, ..., NOW + 9 * HOUR, "EXPIRE_TIME_WITHOUT_KEPT"),
        (KEPT, Retention.TEMPORARY, NOW + 9 * HOUR, "EXPIRE_TIME_WITHOUT_KEPT"),
        (KEPT, ..., ..., "NOTHING_TO_UPDATE"),
    ],
)
async def test_an_update_changes_what_it_names(
    world: World, *, before: Term, retention: object, expire_time: object, after: Term | str
) -> None:
    document = await world.add(1, term=before)
    change = Change(
        names_retention=retention is not ...,
        names_expire_time=expire_time is not ...,
        retention=retention if isinstance(retention, Retention) else None,
        expire_time=expire_time if isinstance(expire_time, dt.datetime) else None,
    )
    if isinstance(after, Term):
        assert (await world.library.update("acme", document.name, change)).term == after
        assert (await world.library.get("acme", document.name)).term == after
        return
    with pytest.raises(InvalidArgument) as refused:
        await world.library.update("acme", document.name, change)
    assert refused.value.reason == after
    assert refused.value.fields[0].field in ("document.expire_time", "update_mask")
    assert (await world.library.get("acme", document.name)).term == before


@pytest.mark.parametrize("page_size", [1, 2, 3, 7])
async def test_receipts_are_listed_once_newest_first(world: World, page_size: int) -> None:
    for number in range(1, 4):
        await world.eraser.delete("acme", (await world.add(number)).name, actor="me")
        await world.eraser.delete("acme", (await world.add(number + 10)).name, actor="me")  # of the same moment
        world.later(seconds=1)
    await world.eraser.delete("other", (await world.add(9, tenant="other")).name, actor="me")
    names: list[str] = []
    token = ""
    while True:
        part = await world.library.receipts("acme", page_size=page_size, page_token=token)
        names += [receipt.name for receipt in part.receipts]
        token = part.next_page_token
        if not token:
            break
    assert names == [f"deletionReceipts/{number:032x}" for number in range(6, 0, -1)]
