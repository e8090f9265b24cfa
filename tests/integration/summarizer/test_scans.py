"""Scanned pages read by Mistral's OCR: the adapter against a server that speaks its API, and the whole service."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from pagemesh.summarizer.v1 import fields_pb2, job_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from services.runtime.errors import NotFound, PagemeshError
from services.summarizer.adapters.guarded import GuardedProvider
from services.summarizer.adapters.mistral_ocr import MODELS, MistralOcrProvider
from services.summarizer.domain.paid_calls import CallState, state_of
from services.summarizer.domain.pictures import PagePrompt, Picture
from services.summarizer.domain.ports import Provider
from services.summarizer.domain.values import Answer, TokenCount
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import DOCUMENT, Client, Start, World, metadata
from tests.integration.summarizer.job_calls import SUCCEEDED, jobs_at, worker_of
from tests.integration.summarizer.peers import Script

OCR = "mistral/mistral-ocr-latest"
PAGE_MICROS = 4_000
TYPED = "These lines were typed, so that nobody has to read them from any picture."
DRAWN = "The council of the village sold the **old mill** for 1,284 pounds in the spring."
READ = "The council of the village sold the old mill for 1,284 pounds in the spring."
ANSWER = Answer((), TokenCount(0, 0, pages=1), text=DRAWN)


def prompt(content: str = DRAWN, model: str = MODELS[0]) -> PagePrompt:
    return PagePrompt(model, Picture("image/jpeg", content.encode()))


async def _no_sleep(_: float) -> None:
    return None


@pytest.fixture
async def reader(mistral: MistralServer) -> AsyncIterator[MistralOcrProvider]:
    async with MistralOcrProvider(api_key=SecretStr("a key"), url=mistral.url, timeout_s=20) as provider:
        yield provider


@pytest.fixture
def guarded(reader: MistralOcrProvider) -> Provider:
    return GuardedProvider(reader, remaining_s=lambda: None, tenant=lambda: "acme", sleep=_no_sleep)


class TestAdapter:
    async def test_a_page_is_sent_as_a_picture_and_comes_back_as_text(
        self, reader: MistralOcrProvider, mistral: MistralServer
    ) -> None:
        assert await reader.complete(prompt()) == ANSWER
        assert [item async for item in reader.stream(prompt())] == [ANSWER]
        (call, _) = mistral.books.calls
        assert (call["model"], call["authorization"]) == ("mistral-ocr-latest", "Bearer a key")
        assert call["include_image_base64"] is False
        assert reader.count(prompt()) == TokenCount(0, 0, pages=1)
        assert mistral.books.pages == 2

    @pytest.mark.parametrize(
        ("behaviour", "reason", "state"),
        [
            ("401", "PROVIDER_CREDENTIAL", CallState.FREE),
            ("422", "PROVIDER_REFUSED", CallState.FREE),
            ("429:3", "PROVIDER_RATE_LIMITED", CallState.FREE),
            ("500", "PROVIDER_UNAVAILABLE", CallState.UNKNOWN),
            ("503:1", "PROVIDER_UNAVAILABLE", CallState.FREE),
            ("cut", "PROVIDER_UNAVAILABLE", CallState.UNKNOWN),
            ("not_http", "PROVIDER_UNAVAILABLE", CallState.UNKNOWN),
            ("garbage", "PROVIDER_INVALID_ANSWER", CallState.UNKNOWN),
            ("invalid_json", "PROVIDER_INVALID_ANSWER", CallState.UNKNOWN),
            ("no_usage", "PROVIDER_INVALID_ANSWER", CallState.UNKNOWN),
            ("over_long", "PROVIDER_INVALID_ANSWER", CallState.UNKNOWN),
            ("no_pages", "PROVIDER_INVALID_ANSWER", CallState.KNOWN),
            ("two_pages", "PROVIDER_INVALID_ANSWER", CallState.KNOWN),
        ],
    )
    async def test_each_fault_says_what_it_costs(
        self, reader: MistralOcrProvider, mistral: MistralServer, behaviour: str, reason: str, state: CallState
    ) -> None:
        mistral.script(behaviour)
        with pytest.raises(PagemeshError) as failed:
            await reader.complete(prompt())
        assert failed.value.reason == reason
        assert state_of(failed.value, bills_unanswered=True) is state
        assert "mill" not in str(failed.value)
        if state is CallState.KNOWN:
            assert failed.value.metadata["pages"] == {"no_pages": "1", "two_pages": "2"}[behaviour]

    async def test_a_slow_answer_is_not_waited_for(self, mistral: MistralServer) -> None:
        mistral.script("hang")
        async with MistralOcrProvider(api_key=SecretStr("a key"), url=mistral.url, timeout_s=0.2) as reader:
            with pytest.raises(PagemeshError) as failed:
                await reader.complete(prompt())
        assert failed.value.reason == "PROVIDER_TIMEOUT"

    async def test_an_empty_page_is_an_answer(self, reader: MistralOcrProvider, mistral: MistralServer) -> None:
        mistral.script("empty")
        assert (await reader.complete(prompt())).text == ""

    async def test_load_is_tried_again_and_nothing_else(self, guarded: Provider, mistral: MistralServer) -> None:
        mistral.script("429:1", "503:1", "ok")
        assert await guarded.complete(prompt()) == ANSWER
        assert mistral.calls == 3
        mistral.script("500", "ok")
        with pytest.raises(PagemeshError):
            await guarded.complete(prompt())
        assert mistral.calls == 4

    async def test_models_are_those_with_a_price(self, guarded: Provider) -> None:
        assert guarded.models() == MODELS
        with pytest.raises(NotFound):
            await guarded.complete(prompt(model="mistral-small-latest"))


@pytest.fixture
def scanned(world: World) -> Script:
    """Two scans between typed pages; the parser misread one of them and nothing of the other."""
    script = Script(
        (TYPED, "The c0uncil of the vil1age", None, ""),
        scans=frozenset({2, 4}),
        pictures={2: DRAWN.encode(), 4: b"A receipt says that the money came in June, in coins of silver."},
    )
    world.extractor.documents[world.tenant, DOCUMENT] = script
    return script


class TestWhole:
    async def test_a_scan_is_read_cited_and_paid_for_once(
        self, world: World, client: Client, mistral: MistralServer, scanned: Script
    ) -> None:
        request = service_pb2.EstimateRequest(document=DOCUMENT, summary=service_pb2.SummaryOptions(ocr_model=OCR))
        found = (await client.stub.Estimate(request, metadata=metadata(world.tenant))).estimate
        assert (found.ocr_model, found.ocr_page_count, mistral.calls) == (OCR, 2, 0)
        summary = await client.summarize(ocr_model=OCR)
        assert (summary.scan_reading.model, list(summary.scan_reading.pages)) == (OCR, [2, 4])
        assert list(summary.failed_pages) == [3]
        cited = {citation.quote: citation for sentence in summary.sentences for citation in sentence.citations}
        assert (cited[READ].page, cited[READ].read_by_model, list(cited[READ].boxes)) == (2, True, [])
        assert (cited[TYPED].read_by_model, len(cited[TYPED].boxes)) == (False, 1)
        used = summary.consumption
        assert (used.ocr_pages, used.provider_calls, used.settled) == (2, 3, True)
        events = await world.ledger.events()
        assert [event for event in events if event[0] == "ocr.page"] == [("ocr.page", 1, 0, PAGE_MICROS)] * 2
        assert sum(event[3] for event in events) == used.cost.micros <= found.price.high.micros
        assert set((await world.ledger.holds()).values()) == {"SETTLED"}
        again = await client.summarize(ocr_model=OCR, focus="the mill")
        assert (again.consumption.ocr_pages, mistral.books.pages) == (0, 2)
        nobody = await client.summarize()
        assert not nobody.HasField("scan_reading")

    async def test_where_the_provider_is_down_the_parsers_reading_stands(
        self, client: Client, mistral: MistralServer, scanned: Script
    ) -> None:
        mistral.script("401", "401")
        summary = await client.summarize(ocr_model=OCR)
        assert list(summary.scan_reading.failed_pages) == [2, 4]
        assert list(summary.failed_pages) == [3, 4]
        assert not any(c.read_by_model for sentence in summary.sentences for c in sentence.citations)

    async def test_fields_and_jobs_read_scans_too(
        self, world: World, client: Client, mistral: MistralServer, scanned: Script
    ) -> None:
        scanned.pictures[4] = b"Total: 12.50\n\nNumber: RE-17"
        request = fields_pb2.ExtractFieldsRequest(document=DOCUMENT, options=fields_pb2.FieldOptions(ocr_model=OCR))
        kinds = {"total": {"type": "number"}, "number": {"type": "string"}}
        request.json_schema.update({"type": "object", "properties": kinds})
        extraction = (await client.stub.ExtractFields(request, metadata=metadata(world.tenant))).extraction
        assert dict(extraction.json) == {"total": 12.5, "number": "RE-17"}
        assert list(extraction.scan_reading.pages) == [2, 4]
        assert all(field.citation.read_by_model and not field.citation.boxes for field in extraction.fields)
        assert extraction.consumption.ocr_pages == 2

    async def test_a_deployments_default_a_wrong_name_and_a_job(
        self, world: World, start: Start, paid: dict[str, object], scanned: Script
    ) -> None:
        client = await start(**paid, ocr_model=OCR)
        assert list((await client.summarize()).scan_reading.pages) == [2, 4]
        assert not (await client.summarize(ocr_model="none")).HasField("scan_reading")
        with pytest.raises(PagemeshError) as refused:
            await client.summarize(ocr_model="mistral/mistral-small-latest")
        assert (refused.value.reason, refused.value.fields[0].field) == ("MODEL_UNKNOWN", "options.ocr_model")
        work = job_pb2.JobWork(summarize=service_pb2.SummaryOptions(ocr_model=OCR, focus="coins"))
        async with jobs_at(world, client.target) as jobs, worker_of(world, **paid):
            done = await jobs.ended((await jobs.create(DOCUMENT, work=work)).name)
        assert done.state == SUCCEEDED, done.error
        assert done.work.summarize.ocr_model == OCR
        assert list(done.result.summary.scan_reading.pages) == [2, 4]
