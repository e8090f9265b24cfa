"""Each kind of work, from the desk to its result: who may hand it in, and that a worker does it as the call would."""

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from pagemesh.extractor.v1 import extractor_service_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2
from services.runtime.access import of_descriptor
from services.runtime.errors import InvalidArgument, NotFound, OutOfRange, PermissionDenied, ResourceExhausted
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.encoding import Undecodable
from services.summarizer.adapters.job_encoding import (
    decode_result,
    decode_work,
    encode_result,
    encode_work,
    fingerprint,
)
from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.domain.answer_values import CitedAnswer
from services.summarizer.domain.events import Progress
from services.summarizer.domain.fields_values import Extraction
from services.summarizer.domain.job_desk import JobDesk, JobLimits
from services.summarizer.domain.job_orders import Orders
from services.summarizer.domain.job_policy import judge
from services.summarizer.domain.job_scopes import SCOPES
from services.summarizer.domain.job_standing import SUSPENDED_RETRY_S, ended, suspended
from services.summarizer.domain.job_work import JobWork
from services.summarizer.domain.jobs import (
    AskWork,
    Claim,
    ExtractWork,
    Fault,
    FieldsWork,
    JobState,
    Order,
    Priority,
    SummarizeWork,
    Work,
)
from services.summarizer.domain.page_range import PageRange
from services.summarizer.domain.personal_kinds import ALL
from services.summarizer.domain.summarize import StreamSummarize
from services.summarizer.domain.values import Caller
from tests.unit.summarizer.fields.test_extract_fields import PAGES, RIGHT, SCHEMA, TOTAL, Fields, say
from tests.unit.summarizer.flow.asking import AskFlow
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, Flow, options

INLINE = FieldsWork(schema=json.dumps(SCHEMA))
ASK = AskWork("What is the invoice number?", 8)
SCANS: tuple[Work, ...] = (SummarizeWork(options(ocr_model="e/f")), FieldsWork("", "schemas/a@3", "", (), "e/f"))
RANGES: tuple[Work, ...] = (
    FieldsWork("", "schemas/a@3", "", (), pages=PageRange(3, 7)),
    FieldsWork("", "schemas/a@3", "", (), "e/f", (), PageRange(2)),
    FieldsWork("", "schemas/a@3", "", (), "e/f", ALL, PageRange(0, 9)),
)
KINDS: tuple[Work, ...] = (SummarizeWork(options()), ExtractWork(), INLINE, ASK)
EVERYTHING = frozenset(SCOPES.values())
METHODS = {
    SummarizeWork: (summarizer_service_pb2, "SummarizerService", "Summarize"),
    ExtractWork: (extractor_service_pb2, "ExtractorService", "ExtractPages"),
    FieldsWork: (summarizer_service_pb2, "SummarizerService", "ExtractFields"),
    AskWork: (summarizer_service_pb2, "SummarizerService", "Ask"),
}


def scoped(*scopes: str) -> Caller:
    return replace(ALICE, scopes=frozenset({"jobs.create", *scopes}))


def order(work: Work, caller: Caller | None = None, **changes: Any) -> Order:
    return Order(caller or scoped(*EVERYTHING), (DOCUMENT,), work, Priority.NORMAL, 0, **changes)


class Refusing:
    """Lets everybody go on until it is told otherwise."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[tuple[str, str]] = []

    async def check(self, caller: Caller, scope: str) -> None:
        self.asked.append((caller.actor, scope))
        if self.error is not None:
            raise self.error


class Shop:
    """A desk, and what a worker does, over one flow."""

    def __init__(self) -> None:
        self.flow = Flow()
        self.flow.provider.context_tokens = 2_000
        self.flow.pages.put("acme", DOCUMENT, *PAGES)
        self.fields = Fields(self.flow)
        self.store = MemoryJobs(lambda: datetime.now(UTC))
        self.desk = JobDesk(
            store=self.store,
            bell=self.store.bells,
            orders=Orders(models=self.flow.models(), schemas=self.fields.schemas),
            pages=self.flow.pages,
            act_as=act_as,
            limits=JobLimits(most_waiting=1000, max_attempts=3, keep_s=1000),
            now=lambda: datetime.now(UTC),
        )
        stream: StreamSummarize = None  # type: ignore[assignment]  # no summary is made here
        self.standing = Refusing()
        self.do = JobWork(
            standing=self.standing,
            stream=stream,
            fields=self.fields.extract,
            ask=AskFlow(self.flow).stream(),
            pages=self.flow.pages,
            spending=self.store,
            act_as=act_as,
        )
        self.told: list[Progress] = []

    async def claim(self, work: Work) -> Claim:
        """A worker's, of a job that was just handed in."""
        await self.desk.create(order(work))
        claim = await self.store.claim(tuple(Priority), worker="w", lease_s=60, most_of_tenant=100)
        assert claim is not None
        assert claim.caller.scopes == frozenset()
        return claim

    async def done(self, work: Work) -> Any:
        return await self.do(await self.claim(work), self.told.append)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.mark.parametrize("work", KINDS, ids=lambda work: type(work).__name__)
class TestScopes:
    async def test_a_key_needs_the_scope_of_the_work(self, shop: Shop, work: Work) -> None:
        scope = SCOPES[type(work)]
        others = EVERYTHING - {scope}
        for call in (shop.desk.create, shop.desk.create_batch):
            with pytest.raises(PermissionDenied, match=f"SCOPE_MISSING.*{scope}") as refused:
                await call(order(work, scoped(*others)))
            assert refused.value.metadata == {"scope": scope}
        assert not shop.store.jobs
        assert await shop.desk.create(order(work, scoped(scope)))

    async def test_whoever_retries_needs_it_too(self, shop: Shop, work: Work) -> None:
        job = await shop.desk.create(order(work))
        await shop.desk.cancel("acme", job.job_id)
        others = EVERYTHING - {SCOPES[type(work)]}
        with pytest.raises(PermissionDenied, match="SCOPE_MISSING"):
            await shop.desk.retry(scoped(*others), job.job_id)
        assert (await shop.desk.get("acme", job.job_id)).state is JobState.CANCELLED
        assert (await shop.desk.retry(scoped(SCOPES[type(work)]), job.job_id)).state is JobState.QUEUED

    def test_it_is_the_one_of_the_call(self, work: Work) -> None:
        module, service, method = METHODS[type(work)]
        found = module.DESCRIPTOR.services_by_name[service].methods_by_name[method]
        assert of_descriptor(found).scope == SCOPES[type(work)]


async def test_fields_are_found_by_a_worker_and_paid_once(shop: Shop) -> None:
    shop.fields.answers(say(RIGHT, TOTAL))
    found = await shop.done(INLINE)
    assert isinstance(found, Extraction)
    assert found.json == {"number": "RE-17", "total": 10.5, "note": None}
    assert shop.told[-1] == Progress(2, 2, 1, 1)
    assert found.consumption.provider_calls == 1
    again = await shop.done(INLINE)
    assert (again.cached, again.fields, len(shop.fields.prompts)) == (True, found.fields, 1)
    assert decode_result("acme", encode_result("acme", found)) == found


async def test_a_question_is_answered_by_a_worker_and_paid_once(shop: Shop) -> None:
    answer = await shop.done(ASK)
    assert isinstance(answer, CitedAnswer)
    assert answer.found
    assert {at.document for at in answer.passages} == {DOCUMENT}
    assert shop.told[-1].chunk_count == 1
    assert answer.consumption.provider_calls == 1
    again = await shop.done(ASK)
    assert (again.cached, again.consumption.provider_calls) == (True, 0)
    assert decode_result("acme", encode_result("acme", answer)) == answer


async def test_a_later_version_of_a_schema_changes_nothing(shop: Shop) -> None:
    await shop.fields.schemas.create("acme", "bill", SCHEMA)
    asked = order(FieldsWork(stored="schemas/bill"), request_id=str(uuid.uuid4()))
    job = await shop.desk.create(asked)
    assert job.work == FieldsWork(stored="schemas/bill@1")
    other = {"type": "object", "properties": {"other": {"type": "string"}}}
    assert (await shop.fields.schemas.create("acme", "bill", other))[0].version == 2
    assert (await shop.desk.create(asked)).job_id == job.job_id, "sent again, it is the same request"
    claim = await shop.store.claim(tuple(Priority), worker="w", lease_s=60, most_of_tenant=100)
    assert claim is not None
    shop.fields.answers(say(RIGHT))
    found = await shop.do(claim, shop.told.append)
    assert isinstance(found, Extraction)
    assert (found.schema, found.json["number"]) == ("schemas/bill@1", "RE-17")


@pytest.mark.parametrize(
    ("work", "kind", "reason"),
    [
        (FieldsWork(stored="schemas/none"), NotFound, "SCHEMA_NOT_FOUND"),
        (FieldsWork(schema='{"type": "array"}'), InvalidArgument, "SCHEMA_INVALID"),
        (replace(INLINE, model="nobody/nothing"), InvalidArgument, "MODEL_UNKNOWN"),
        (AskWork("?!", 8), InvalidArgument, "QUESTION_INVALID"),
        (AskWork("Who?", 8, fallbacks=("nobody/nothing",)), InvalidArgument, "MODEL_UNKNOWN"),
    ],
)
async def test_what_cannot_be_done_is_told_at_once(shop: Shop, work: Work, kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        await shop.desk.create_batch(order(work))
    assert not shop.store.jobs


async def test_faults_are_final_or_pass(shop: Shop) -> None:
    shop.fields.answers(ResourceExhausted("PROVIDER_BUSY", "Wait."))
    claim = await shop.claim(replace(INLINE, fallbacks=("scripted/writer",)))
    with pytest.raises(ResourceExhausted) as busy:
        await shop.do(claim, shop.told.append)
    assert judge(busy.value, tries=1, max_attempts=3, jitter=lambda: 0.0).delay_s is not None
    with pytest.raises(NotFound) as gone:
        await shop.do(replace(claim, document="documents/" + "f" * 32), shop.told.append)
    verdict = judge(gone.value, tries=1, max_attempts=3, jitter=lambda: 0.0)
    assert verdict.delay_s is None
    assert isinstance(verdict.fault, Fault)


@pytest.mark.parametrize(
    "work",
    [
        *KINDS,
        FieldsWork("", "schemas/a@3", "a/b", ("c/d",)),
        AskWork("ä\x00", 3, "de", "a/b", ("c/d",)),
        *SCANS,
        *RANGES,
    ],
)
def test_work_is_kept(work: Work) -> None:
    assert decode_work(encode_work(work)) == work
    assert fingerprint(order(work)) != fingerprint(order(AskWork("Another?", 8)))


async def test_fields_of_some_pages(shop: Shop) -> None:
    shop.fields.answers(say(TOTAL))
    found = await shop.done(replace(INLINE, pages=PageRange(2, 2)))
    assert "Invoice number" not in shop.fields.prompts[0].chunk.text
    assert shop.told[-1].page_count == 1
    assert [field.path for field in found.fields if field.grounded] == [("total",)]
    with pytest.raises(OutOfRange) as past:
        await shop.do(replace(await shop.claim(INLINE), work=replace(INLINE, pages=PageRange(3))), shop.told.append)
    assert judge(past.value, tries=1, max_attempts=3, jitter=lambda: 0.0).delay_s is None, (
        "more tries find no more pages"
    )


def test_what_cannot_be_read_is_told() -> None:
    for work in (b'["fields", "x"]', b'["ask"]', b'["ask", 1, 2, 3, 4, 5]'):
        with pytest.raises(Undecodable):
            decode_work(work)
    for result in (b'["fields"]\n[2]', b'["answer"]\n', b'["answer"]\n[1, []]', b'["fields"]\n{}'):
        with pytest.raises(Undecodable):
            decode_result("acme", result)


@pytest.mark.parametrize("work", KINDS, ids=lambda work: type(work).__name__)
async def test_nothing_is_done_for_one_who_may_not_any_more(shop: Shop, work: Work) -> None:
    claim = await shop.claim(work)
    shop.standing.error = ended("apiKeys/alice was revoked")
    with pytest.raises(PermissionDenied, match="JOB_OWNER_INACTIVE"):
        await shop.do(claim, shop.told.append)
    assert shop.standing.asked == [(ALICE.actor, SCOPES[type(work)])]
    assert (shop.told, shop.flow.books.holds) == ([], {})
    assert judge(shop.standing.error, tries=1, max_attempts=5, jitter=lambda: 0.0).delay_s is None, "it fails for good"
    assert judge(suspended(), tries=1, max_attempts=5, jitter=lambda: 0.0).delay_s == SUSPENDED_RETRY_S
