"""Real and hostile files through the running service: each ends with a typed outcome, a good one beside it is whole.

The files are in the folder that PAGEMESH_CORPUS names; what they try is also tried with made files in
test_extraction.py.
"""

import asyncio
import os
from pathlib import Path

import pytest

from services.runtime.errors import FailedPrecondition, InvalidArgument, PagemeshError
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Client, Service, eventually

pytestmark = [pytest.mark.corpus, pytest.mark.asyncio(loop_scope="session")]

ROOT = Path(__file__).parents[3]
CORPUS = Path(os.environ.get("PAGEMESH_CORPUS", ROOT / ".." / "shared" / "corpus"))
FOLDERS = ("hostile", "slow_or_hang", "password", "zero_pages", "img_bad", "img_ok")
FILES = [path for folder in FOLDERS for path in sorted((CORPUS / folder).glob("*.*"))]
OUTCOME_S = 20

if not FILES:
    pytest.skip("there is no folder of real files; PAGEMESH_CORPUS names it", allow_module_level=True)


async def outcome(client: Client, path: Path) -> str:
    """What becomes of a file: the reason of its refusal, or what its pages are."""
    try:
        extracted = await client.upload_and_extract(path.read_bytes(), timeout_s=OUTCOME_S)
    except (FailedPrecondition, InvalidArgument) as refused:
        return refused.reason
    assert extracted.end is not None
    assert extracted.end.pages_sent == len(extracted.pages)
    return "pages" if extracted.pages else "failed pages"


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}-{path.name}" for path in FILES])
async def test_every_file_ends_with_a_typed_outcome(client: Client, path: Path) -> None:
    found = await outcome(client, path)
    wanted = {"password": "DOCUMENT_ENCRYPTED", "zero_pages": "DOCUMENT_HAS_NO_PAGES", "img_ok": "pages"}
    if path.parent.name in wanted:
        assert found in (wanted[path.parent.name], "UNSUPPORTED_MEDIA_TYPE", "DOCUMENT_CORRUPT")
    if path.parent.name == "hostile" and path.name.endswith("_as.pdf"):
        assert found == "UNSUPPORTED_MEDIA_TYPE"


async def test_a_good_file_beside_all_bombs_is_whole(shared: Service, client: Client) -> None:
    good = client.of("beside-bombs")
    name = (await good.upload(made_pdfs.book(30))).document.name
    ended = asyncio.Event()

    async def bombs() -> None:
        await asyncio.gather(*(outcome(client, path) for path in FILES if "bomb" in path.name), return_exceptions=True)
        ended.set()

    throwing = asyncio.create_task(bombs())
    rounds = 0
    while not ended.is_set():
        try:
            extracted = await good.extract(name)
        except PagemeshError as exc:
            pytest.fail(f"the good file met {exc.reason}")
        assert extracted.numbers == list(range(1, 31))
        assert extracted.failed == []
        rounds += 1
    await throwing
    assert rounds
    await eventually(lambda: not shared.spooled(), "the spool is empty")
    await eventually(lambda: len(shared.parsers()) <= 3, "as many processes as slots and a spare one")
