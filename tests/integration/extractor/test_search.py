"""Searching over gRPC: what was extracted is found, with what it says and where it stands."""

import asyncio
import datetime as dt
from typing import Any

import pytest

from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from services.extractor.adapters import clock
from services.runtime.errors import InvalidArgument
from tests.integration.extractor import made_pdfs, made_scans
from tests.integration.extractor.conftest import Client, Start

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def search(client: Client, query: str, **request: Any) -> pb.SearchPagesResponse:
    found: pb.SearchPagesResponse = await client._call(
        client.stub.SearchPages, pb.SearchPagesRequest(query=query, **request)
    )
    return found


async def searchable(client: Client, data: bytes, name: str, pages: int) -> str:
    """Uploads and extracts; answers the document's name once its pages can be found."""
    document: str = (await client.upload(data, name)).document.name
    await client.extract(document, "text")
    await wait_searchable(client, document, pages)
    return document


async def wait_searchable(client: Client, document: str, pages: int) -> None:
    async with asyncio.timeout(20):
        while (await client.get(document)).searchable_pages != pages:
            await asyncio.sleep(0.02)


async def test_pages_are_found_with_what_they_say_and_where_it_stands(client: Client) -> None:
    lines = made_pdfs.line("The engineers of this ship built engines.") + made_pdfs.line("Nothing else.", 600)
    document = await searchable(client, made_pdfs.document([made_pdfs.line("A title"), lines]), "ship.pdf", 2)
    (hit,) = (await search(client, "engineer engine")).hits
    assert (hit.document, hit.display_name, hit.page) == (document, "ship.pdf", 2)
    assert hit.score > 0
    (snippet,) = hit.snippets
    assert [snippet.text[mark.start : mark.end] for mark in snippet.highlights] == ["engineers", "engines"]
    words = (await client.extract(document, "words")).pages[1].words
    assert list(hit.boxes) == [word.box for word in words if word.text in ("engineers", "engines.")]


async def test_the_basic_view_finds_the_same_pages_and_reads_none(client: Client) -> None:
    document = await searchable(client, made_pdfs.document([made_pdfs.line("A wombat.")] * 3), "wombats.pdf", 3)
    full = await search(client, "wombat", documents=[document])
    basic = await search(client, "wombat", documents=[document], view="SEARCH_VIEW_BASIC")
    assert all(hit.snippets and hit.boxes for hit in full.hits)
    assert not any(hit.snippets or hit.boxes for hit in basic.hits)
    assert [(hit.document, hit.page, hit.score) for hit in basic.hits] == [
        (hit.document, hit.page, hit.score) for hit in full.hits
    ]
    part = await search(client, "wombat", documents=[document], view="SEARCH_VIEW_BASIC", page_size=2)
    rest = await search(client, "wombat", documents=[document], page_size=2, page_token=part.next_page_token)
    assert [hit.page for hit in (*part.hits, *rest.hits)] == [hit.page for hit in full.hits]


async def test_boxes_surround_the_word_on_a_page_that_is_turned(client: Client) -> None:
    await searchable(client, made_pdfs.rotated(), "turned.pdf", 1)
    ((box,),) = [hit.boxes for hit in (await search(client, "turned")).hits]
    # The line begins 72 points from the left of the sheet and 700 from its bottom, and the sheet is turned clockwise:
    # on the page as it is shown the word runs downwards from there.
    assert 690 < box.x0 < box.x1 < 720
    assert 70 < box.y0 < 75
    assert 90 < box.y1 < 120


async def test_parts_of_the_results(client: Client) -> None:
    await searchable(client, made_pdfs.book(25), "book.pdf", 25)
    seen: list[int] = []
    token = ""
    for _ in range(3):
        part = await search(client, "book", page_token=token)
        seen += [hit.page for hit in part.hits]
        token = part.next_page_token
    assert not token
    assert sorted(seen) == list(range(1, 26))


async def test_a_page_token_belongs_to_its_search(client: Client) -> None:
    await searchable(client, made_pdfs.book(3), "book.pdf", 3)
    token = (await search(client, "book", page_size=1)).next_page_token
    assert token
    for request in ({"query": "page"}, {"query": "book", "languages": ["en"]}):
        with pytest.raises(InvalidArgument) as refused:
            await search(client, page_token=token, **request)
        assert refused.value.reason == "INVALID_PAGE_TOKEN"
    assert len((await search(client, "book", page_token=token, page_size=5)).hits) == 2


async def test_another_tenant_finds_nothing_and_cannot_use_the_token(client: Client) -> None:
    document = await searchable(client, made_pdfs.book(3), "book.pdf", 3)
    other = client.of(f"{client.tenant}-other")
    token = (await search(client, "book", page_size=1)).next_page_token
    assert not (await search(other, "book")).hits
    assert not (await search(other, "book", documents=[document])).hits
    with pytest.raises(InvalidArgument):
        await search(other, "book", page_token=token)


async def test_what_was_deleted_is_not_found(client: Client) -> None:
    document = await searchable(client, made_pdfs.book(3), "book.pdf", 3)
    receipt = await client.delete(document)
    assert not (await search(client, "book")).hits
    assert receipt.index_entries_deleted == 3


async def test_extracting_again_changes_nothing(client: Client) -> None:
    document = await searchable(client, made_pdfs.book(3), "book.pdf", 3)
    await client.extract(document, "text", "words")
    assert len((await search(client, "book")).hits) == 3
    assert (await client.get(document)).searchable_pages == 3


async def test_times_beyond_the_calendar_are_refused(client: Client) -> None:
    request = pb.SearchPagesRequest(query="x")
    request.stored_after.seconds = 1 << 60
    with pytest.raises(InvalidArgument) as refused:
        await client._call(client.stub.SearchPages, request)
    assert [violation.field for violation in refused.value.fields] == ["stored_after"]


async def test_documents_that_nobody_extracts_are_read_by_the_service(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.SystemClock.now
    monkeypatch.setattr("services.extractor.__main__._INDEX_EVERY_S", 0.05)
    client = (await start()).client
    good = (await client.upload(made_pdfs.book(3), "book.pdf")).document.name
    locked = (await client.upload(made_pdfs.encrypted(), "locked.pdf")).document.name
    assert not (await search(client, "book")).hits
    # Half a minute later, by the service's own clock.
    monkeypatch.setattr(clock.SystemClock, "now", lambda self: now(self) + dt.timedelta(seconds=40))
    await wait_searchable(client, good, 3)
    assert len((await search(client, "book")).hits) == 3
    assert (await client.get(locked)).searchable_pages == 0


async def test_recognised_text_is_found_where_it_stands_and_nothing_is_recognised_for_a_search(start: Start) -> None:
    client = (await start(ocr_processes=1)).client
    scan, boxes = made_scans.scanned_pdf()
    document = (await client.upload(scan, "scan.pdf")).document.name
    await client.extract(document, "text", timeout_s=100)
    await wait_searchable(client, document, 1)
    async with asyncio.timeout(20):
        while not (hits := (await search(client, "scanner word")).hits):
            await asyncio.sleep(0.05)
    (hit,) = hits
    assert [snippet.text[mark.start : mark.end] for snippet in hit.snippets for mark in snippet.highlights] == [
        "scanner",
        "words",
    ]
    for box, name in zip(hit.boxes, ("scanner", "words"), strict=True):
        assert (box.x0 + box.x1) / 2 == pytest.approx((boxes[name][0] + boxes[name][2]) / 2, abs=6)
        assert (box.y0 + box.y1) / 2 == pytest.approx((boxes[name][1] + boxes[name][3]) / 2, abs=6)
