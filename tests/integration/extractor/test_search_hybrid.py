"""Searches by meaning over gRPC: vectors that the summarizer hands over, and queries that it has vectors made of."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from pagemesh.extractor.v1 import vectors_pb2
from pagemesh_cli.stack.certificates import CertificateAuthority
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from tests.fakes.embedding import vector_of
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Client, Service, connected
from tests.integration.extractor.scripted_summarizer import ScriptedSummarizer, packed
from tests.integration.extractor.test_search import search, searchable

pytestmark = pytest.mark.asyncio(loop_scope="session")
MODEL = "mistral/mistral-embed"


@pytest.fixture
def summarizer(shared: Service) -> Iterator[ScriptedSummarizer]:
    shared.summarizer.embedding_model = MODEL
    yield shared.summarizer
    shared.summarizer.embedding_model, shared.summarizer.down = "", False
    shared.summarizer.queries.clear()


@pytest_asyncio.fixture(loop_scope="session")
async def as_summarizer(shared: Service, client: Client, mesh_pki: CertificateAuthority) -> AsyncIterator[Client]:
    async with connected(mesh_pki, shared.target, identity="summarizer") as caller:
        yield caller.of(client.tenant)


async def keep(client: Client, document: str, *texts: str) -> None:
    passages = [
        vectors_pb2.PassageVector(page=number, vector=packed(vector_of(text))) for number, text in enumerate(texts, 1)
    ]
    request = vectors_pb2.StorePageVectorsRequest(document=document, model=MODEL, passages=passages)
    await client._call(client.stub.StorePageVectors, request)


async def test_a_page_that_shares_no_word_is_found_until_its_document_is_erased(
    client: Client, as_summarizer: Client, summarizer: ScriptedSummarizer
) -> None:
    texts = ("Bees make honey.", "Cars need fuel.")
    document = await searchable(client, made_pdfs.document([made_pdfs.line(text) for text in texts]), "a.pdf", 2)
    before = await search(client, "automobile", mode="SEARCH_MODE_HYBRID")
    assert (list(before.hits), before.degraded, before.degraded_reason) == ([], True, "NOTHING_EMBEDDED")
    await keep(as_summarizer, document, *texts)
    assert not summarizer.queries
    assert not (await search(client, "automobile")).hits
    found = await search(client, "automobile", mode="SEARCH_MODE_HYBRID")
    assert (found.hits[0].document, found.hits[0].page) == (document, 2)
    assert not found.degraded
    found = await search(client, "honey", mode="SEARCH_MODE_HYBRID", page_size=1)
    assert (found.hits[0].page, len(found.hits[0].boxes)) == (1, 1)
    rest = await search(client, "honey", mode="SEARCH_MODE_HYBRID", page_token=found.next_page_token)
    assert [hit.page for hit in rest.hits] == [2]
    assert (await search(client, "automobile", mode="SEARCH_MODE_VECTORS")).hits[0].page == 2
    assert not (await search(client.of("tenant-other"), "automobile", mode="SEARCH_MODE_VECTORS")).hits
    summarizer.down = True
    down = await search(client, "honey", mode="SEARCH_MODE_HYBRID")
    assert ([hit.page for hit in down.hits], down.degraded_reason) == ([1], "PROVIDER_UNAVAILABLE")
    summarizer.down = False
    receipt = await client.delete(document)
    assert receipt.index_entries_deleted == 4
    assert not (await search(client, "automobile", mode="SEARCH_MODE_VECTORS")).hits


async def test_what_is_refused(client: Client, as_summarizer: Client, shared: Service) -> None:
    document = (await client.upload(made_pdfs.document([made_pdfs.line("Bees.")]))).document.name
    with pytest.raises(FailedPrecondition, match="EMBEDDING_NOT_CONFIGURED"):
        await search(client, "bees", mode="SEARCH_MODE_HYBRID")
    with pytest.raises(InvalidArgument, match="SEARCH_QUERY_INVALID"):
        await search(client, "bees -wasps", mode="SEARCH_MODE_HYBRID")
    with pytest.raises(PermissionDenied):
        await keep(client, document, "Bees.")
    with pytest.raises(NotFound):
        await keep(as_summarizer.of("tenant-other"), document, "Bees.")
    passage = vectors_pb2.PassageVector(page=1, vector=b"\0\1")
    for wrong in ([passage, passage], [passage, vectors_pb2.PassageVector(page=2, vector=b"\0\1\0\1")]):
        request = vectors_pb2.StorePageVectorsRequest(document=document, model=MODEL, passages=wrong)
        with pytest.raises(InvalidArgument, match="VECTOR_INVALID"):
            await as_summarizer._call(as_summarizer.stub.StorePageVectors, request)
