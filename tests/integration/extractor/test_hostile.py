"""Every made hostile file through the running service: it ends with a typed outcome, and a good one beside it is whole.

A parser may hold less here than by default, so that what swells does so long before it takes too long.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.conftest import Databases
from tests.integration.extractor import judging
from tests.integration.extractor.conftest import Service, running
from tests.integration.extractor.hostile_builders import GOOD_TEXT
from tests.integration.extractor.hostile_files import HOSTILE

pytestmark = pytest.mark.asyncio(loop_scope="session")

HARMLESS = {
    "annotation-draws-1e12",
    "annotations-100000",
    "colour-space-of-itself",
    "file-inside",
    "goes-out",
    "java-script",
    "launch",
    "links-100000",
    "names-of-itself",
    "optional-content-of-itself",
    "outline-of-itself",
    "outline-of-100000-entries",
    "outline-of-200000-levels",
    "page-labels-of-themselves",
    "structure-of-itself",
    "updates-3000",
    "xref-before-itself",
}
"""Whose page is good: what harms is beside it, and its text has to come."""
REFUSED = {
    "encrypted": "DOCUMENT_ENCRYPTED",
    "pages-none": "DOCUMENT_HAS_NO_PAGES",
    "nothing-but-a-header": "DOCUMENT_CORRUPT",
    "page-tree-of-itself": "PAGE_CORRUPT",
    # On a machine that is busy enough, the document's time is over before the page's second try.
    "forms-1e12": "_TIMEOUT",
    "to-unicode-amplified": "PAGE_MEMORY",
}
"""Whose outcome is known for certain: the end of its reason."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small(
    postgres_server: Databases, mesh_pki: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    directory: Path = tmp_path_factory.mktemp("small")
    async with running(postgres_server, mesh_pki, directory, parser_memory_bytes=320 * 1024 * 1024) as service:
        yield service


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_file_ends_typed_and_harms_no_other(small: Service, name: str) -> None:
    data = await asyncio.to_thread(HOSTILE[name])
    client = small.client.of("hostile")

    async def read() -> tuple[str, str]:
        return await judging.pages(client, await judging.uploaded(client, data), "text")

    parent = small.parser_parent().pid
    outcome, _ = await asyncio.gather(judging.typed(read), judging.good_file_is_whole(small.client.of("good")))
    assert small.parser_parent().pid == parent
    assert outcome.word.endswith(REFUSED.get(name, ""))
    if name in HARMLESS:
        assert (outcome.word, outcome.text.strip()) == ("OK", GOOD_TEXT)
