"""A database that the first revision of the schema filled, brought to the newest: nothing is lost, and what was under
way is completed by the service that starts on it."""

import asyncio
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pagemesh.extractor.v1 import document_pb2
from services.database.migrate import migrate
from services.runtime.errors import NotFound
from tests.conftest import Databases
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Start

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIGRATIONS = Path(__file__).parents[3] / "services" / "extractor" / "migrations"
ADD = """
    INSERT INTO extractor.documents
        (tenant, id, sha256, display_name, media_type, size_bytes, create_time, page_count, erase_time)
    VALUES (%s, %s, %s, 'a.pdf', 'application/pdf', %s, now(), %s, now() + %s::interval)
"""


@pytest.fixture
def first_revision(postgres_server: Databases, tmp_path: Path) -> Iterator[str]:
    """The data source of a database that has the first revision of the extractor's schema."""
    versions = tmp_path / "first" / "versions"
    versions.mkdir(parents=True)
    shutil.copy(MIGRATIONS / "versions" / "0001_documents.py", versions)
    database = postgres_server.create_empty()
    dsn = postgres_server.dsn("extractor", database)
    migrate(dsn, directory=versions.parent, schema="extractor")
    yield dsn
    postgres_server.drop(database)


def fill(dsn: str, tenant: str, objects: Path, *, pages: int, erase: str | None) -> str:
    """A document as it was kept by then, `erase` from now invisible; answers its name."""
    data = made_pdfs.book(pages)
    sha256 = hashlib.sha256(data).hexdigest()
    path = objects / tenant / sha256
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
        connection.execute(ADD, (tenant, sha256[:32], sha256, len(data), pages, erase))
    return f"documents/{sha256[:32]}"


async def test_deletions_go_on_and_documents_stay_after_an_upgrade(
    first_revision: str, start: Start, tmp_path: Path
) -> None:
    objects, tenants = tmp_path / "objects", ("acme", "beta")
    kept, deleted, unfinished = {}, {}, {}
    for tenant in tenants:
        kept[tenant] = fill(first_revision, tenant, objects, pages=3, erase=None)
        deleted[tenant] = fill(first_revision, tenant, objects, pages=4, erase="-1 minute")
        unfinished[tenant] = fill(first_revision, tenant, objects, pages=5, erase="1 hour")
    migrate(first_revision, directory=MIGRATIONS, schema="extractor")

    service = await start(database_url=first_revision)
    for client in map(service.client.of, tenants):
        async with asyncio.timeout(30):
            while len(service.stored(client.tenant)) > 2:
                await asyncio.sleep(0.02)
            while not (receipts := (await client.receipts()).receipts):
                await asyncio.sleep(0.02)
        (receipt,) = receipts
        assert (receipt.document, receipt.objects_deleted) == (deleted[client.tenant], 1)
        with pytest.raises(NotFound):
            await client.get(unfinished[client.tenant])
        document = await client.get(kept[client.tenant])
        assert document.retention == document_pb2.RETENTION_KEPT
        assert 364 <= (document.expire_time.ToDatetime() - document.create_time.ToDatetime()).days <= 365
        assert (await client.extract(document.name)).numbers == [1, 2, 3]
        async with asyncio.timeout(30):
            while (await client.get(document.name)).searchable_pages != 3:
                await asyncio.sleep(0.02)
    assert service.summarizer.asked >= len(tenants)
    with psycopg.connect(first_revision) as connection:
        # Row security holds for the owner as before.
        assert connection.execute("SELECT count(*) FROM extractor.documents").fetchone() == (0,)
