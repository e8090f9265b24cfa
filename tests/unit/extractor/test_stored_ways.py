"""What is stored of a document stays bounded, whatever parts its pages are asked for with."""

from itertools import combinations
from pathlib import Path

from services.extractor.adapters.memory import MemoryDocuments, MemoryObjectStore
from services.extractor.domain.pages import NO_PARTS, Page, Part
from services.extractor.domain.stored_pages import Source
from tests.unit.extractor.reading_world import DOCUMENT, PAGES, SHA256, World

CHOICES = (Part.BLOCKS, Part.WORDS, Part.MARKDOWN, Part.TABLES, Part.IMAGES, Part.LINKS, Part.LANGUAGE, Part.FLAGS)


async def test_hundreds_of_choices_of_parts_are_stored_in_few_ways(tmp_path: Path) -> None:
    documents, store = MemoryDocuments(), MemoryObjectStore()
    (tmp_path / "bytes").write_bytes(b"bytes")
    await store.put(f"acme/{SHA256}", tmp_path / "bytes")
    async with documents.locked("acme", DOCUMENT.id) as record:
        await record.insert(DOCUMENT)
    world = World(documents, store)
    for count in range(len(CHOICES) + 1):  # the smallest first, so that none is in what is stored already
        for chosen in combinations(CHOICES, count):
            parts = Part.TEXT
            for part in chosen:
                parts |= part
            read = await world.run(parts=parts)
            assert len(read.pages) == PAGES
            assert all(isinstance(page, Page) and parts in page.parts for page in read.pages)
            await world.keeper.flush()
    stored = await world.pages.find("acme", DOCUMENT.id)
    ways = {span.parts for span in stored.spans if span.source is Source.PARSED}
    assert NO_PARTS not in ways
    assert len(ways) <= 16
