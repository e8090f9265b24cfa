"""Real and hostile files through the whole stack: each ends with a typed outcome in time, a good one beside it is
whole, nobody dies, and nothing is left behind.

The files are in the folder that PAGEMESH_CORPUS names. `make test` takes all hostile ones and a few of every class;
`make corpus` takes all of them, and the made ones of hostile_files.py too, with the default settings. What they try is
also tried with made files alone in tests/integration/extractor/test_hostile.py.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from services.runtime.errors import NotFound, OutOfRange
from tests.corpus.conftest import WHOLE, Table, Victim
from tests.integration.extractor import judging, made_pdfs
from tests.integration.extractor.conftest import Client, eventually
from tests.integration.extractor.hostile_files import HOSTILE

pytestmark = [pytest.mark.corpus, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
CORPUS = Path(os.environ.get("PAGEMESH_CORPUS", ROOT / ".." / "shared" / "corpus"))
CLASSES = sorted(path.name for path in CORPUS.iterdir() if path.is_dir()) if CORPUS.is_dir() else []
A_FEW = 2
MIB = 1024 * 1024
MAY_STAY_BYTES = 192 * MIB
"""How much larger than after its first files the service may be in the end: its allocator keeps some of what the
largest pictures needed."""

if not CLASSES:
    pytest.skip("there is no folder of real files; PAGEMESH_CORPUS names it", allow_module_level=True)


def _files() -> dict[str, Callable[[], bytes]]:
    """By class and name."""
    chosen: dict[str, Callable[[], bytes]] = {}
    for group in CLASSES:
        paths = sorted((CORPUS / group).iterdir(), key=lambda path: (path.suffix == ".txt", path.name))
        for path in paths if WHOLE or group == "hostile" else paths[:A_FEW]:
            chosen[f"{group}/{path.name}"] = path.read_bytes
    if WHOLE:
        chosen.update({f"made/{name}": make for name, make in HOSTILE.items()})
    return chosen


FILES = _files()
WANTED = {
    "empty.pdf": "EMPTY_FILE",
    "html_as.pdf": "UNSUPPORTED_MEDIA_TYPE",
    "svg_as.pdf": "UNSUPPORTED_MEDIA_TYPE",
    "txt_as.pdf": "UNSUPPORTED_MEDIA_TYPE",
    "zip_as.pdf": "UNSUPPORTED_MEDIA_TYPE",
    "hdr_only.pdf": "DOCUMENT_CORRUPT",
}
WANTED_OF_CLASS = {
    "clean": {"OK"},
    "papers": {"OK", "UNSUPPORTED_MEDIA_TYPE"},
    "password": {"DOCUMENT_ENCRYPTED", "DOCUMENT_CORRUPT"},
    "zero_pages": {"DOCUMENT_HAS_NO_PAGES", "DOCUMENT_CORRUPT", "UNSUPPORTED_MEDIA_TYPE"},
    "img_ok": {"OK"},
}


async def all_asked_of(victim: Victim, table: Table, name: str, document: str) -> str:
    """Everything that can be asked of a document, in turn; the word for its text."""
    group, _, file = name.partition("/")
    words = {}
    for asked, question in judging.QUESTIONS.items():

        async def ask(question: judging.Question = question) -> tuple[str, str]:
            return await question(victim.client, document)

        outcome = await judging.typed(ask)
        table.add(group, file, asked, outcome)
        words[asked] = outcome.word
    return words["text"]


async def becomes(victim: Victim, table: Table, name: str) -> str:
    group, _, file = name.partition("/")
    data = await asyncio.to_thread(FILES[name])
    stored = await judging.typed(lambda: _stored(victim.client, data))
    table.add(group, file, "upload", stored)
    if stored.word != "OK":
        return stored.word
    try:
        return await all_asked_of(victim, table, name, stored.text)
    finally:
        await victim.client.delete(stored.text)


async def _stored(client: Client, data: bytes) -> tuple[str, str]:
    return "OK", await judging.uploaded(client, data)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def before(victim: Victim) -> dict[str, int]:
    """What the service has when it has read a few good files in every way and nothing else: models are loaded then."""
    for _ in range(20):
        await judging.good_file_is_whole(victim.good)
    for data in (made_pdfs.book(2), made_pdfs.png(800, 600)):
        document = await judging.uploaded(victim.good, data)
        for question in judging.QUESTIONS.values():
            with contextlib.suppress(OutOfRange):  # there is no image in a book
                await question(victim.good, document)
    service = victim.service()
    return {
        "pid": service.pid,
        "descriptors": service.num_fds(),
        "rss": service.memory_info().rss,
        **{f"zygote {process.pid}": process.num_fds() for process in victim.zygotes()},
    }


@pytest.mark.parametrize("name", FILES)
async def test_a_file_ends_typed_in_time_and_harms_no_other(
    victim: Victim, table: Table, before: dict[str, int], name: str
) -> None:
    word, _ = await asyncio.gather(becomes(victim, table, name), judging.good_file_is_whole(victim.good))
    assert victim.service().pid == before["pid"], "the service is the same process as before"
    group, _, file = name.partition("/")
    assert word == WANTED.get(file, word)
    if group in WANTED_OF_CLASS and WHOLE:
        assert word in WANTED_OF_CLASS[group]


async def test_nothing_is_left_of_all_this(victim: Victim, before: dict[str, int]) -> None:
    for client in (victim.client, victim.good):
        while documents := (await client.list(page_size=100)).documents:
            for document in documents:
                try:
                    await client.delete(document.name)
                except NotFound:
                    continue
    service = victim.service()
    assert (service.pid, victim.part().restarts) == (before["pid"], 0)
    zygotes = {f"zygote {process.pid}": process.num_fds() for process in victim.zygotes()}
    gone = {name for name in before if name.startswith("zygote")} - set(zygotes)
    # The one that reads pictures goes when nobody has needed it for five minutes.
    assert len(gone) <= victim.log().count('"ocr_unloaded"'), "no zygote has died"
    assert all(count <= before.get(name, count) + 1 for name, count in zygotes.items())
    await eventually(lambda: service.num_fds() <= before["descriptors"] + 8, "no more descriptors than before")
    cores = psutil.cpu_count() or 1
    await eventually(lambda: len(victim.workers()) <= 2 * (cores + 1), "as many processes as slots and spare ones")
    assert victim.files("spool") == []
    assert victim.files("objects") == []
    assert service.memory_info().rss <= before["rss"] + MAY_STAY_BYTES
