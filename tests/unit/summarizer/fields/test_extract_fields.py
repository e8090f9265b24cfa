"""The whole way from a request to checked fields, with every port in memory."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from services.runtime.call import Identity, acting_as
from services.runtime.errors import InvalidArgument, NotFound, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory_schemas import MemorySchemaCache, MemorySchemas
from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.extract_fields import ExtractFields, Wanted
from services.summarizer.domain.field_maker import FieldMaker
from services.summarizer.domain.fields_values import Extraction, FieldsPrompt, FieldsStage
from services.summarizer.domain.found_field import FoundField, Scalar
from services.summarizer.domain.map_reduce import MapReduce
from services.summarizer.domain.ports import PageFailed
from services.summarizer.domain.schema_book import SchemaBook
from services.summarizer.domain.single_flight import SingleFlight
from services.summarizer.domain.values import Answer, Caller, TokenCount
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, MODEL, STRANGER, Flow, ScriptedProvider, page

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "number": {"type": "string", "pattern": "^RE-[0-9]+$"},
        "total": {"type": "number"},
        "note": {"type": ["string", "null"]},
    },
    "required": ["number", "note"],
}
LONG = {"type": "object", "properties": {"numbers": {"type": "array", "items": {"type": "string"}}}}
PAGES = (page(1, "Invoice number RE-17 of today"), page(2, "Total due 10.50 EUR"))


def say(*fields: tuple[str, Scalar, str, int]) -> Answer:
    return Answer((), TokenCount(20, 5), tuple(FoundField(*field) for field in fields))


RIGHT = ("/number", "RE-17", "Invoice number RE-17", 1)
WRONG = ("/number", "17", "Invoice number RE-17", 1)
TOTAL = ("/total", "10.50", "Total due 10.50 EUR", 2)


class Fields:
    """The use case over a Flow."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.schemas = SchemaBook(store=MemorySchemas(), cache=MemorySchemaCache(), counted=lambda _: None)
        self.savings = flow.savings()
        keeper = Keeper(
            pages=flow.pages,
            results=flow.store,
            cache=flow.cache,
            tails=flow.tails,
            act_as=act_as,
            new_id=lambda: str(uuid.uuid4()),
        )
        map_reduce = MapReduce(results=flow.store, paid=flow.paid())
        self.extract = ExtractFields(
            models=flow.models(),
            pages=flow.pages,
            schemas=self.schemas,
            flights=SingleFlight(joined=lambda: flow.joins.append(None)),
            maker=FieldMaker(scans=flow.scans(flow.pages, map_reduce), map_reduce=map_reduce, act_as=act_as),
            keeper=keeper,
            savings=self.savings,
            new_id=lambda: str(uuid.uuid4()),
            now_s=flow.clock,
            failed_over=lambda asked, instead, why: flow.failovers.append((asked.name, instead.name, why)),
        )

    async def __call__(self, wanted: dict[str, Any] | str = SCHEMA, caller: Caller = ALICE, **more: Any) -> Extraction:
        asked = Wanted(stored=wanted) if isinstance(wanted, str) else Wanted(schema=wanted)
        identity = Identity(caller.tenant, caller.actor, caller.project, caller.scopes)
        with acting_as(identity, request_id=caller.request_id):
            return await self.extract(caller, DOCUMENT, asked, **more)

    def answers(self, *answers: Answer | Exception) -> None:
        waiting: Iterator[Answer | Exception] = iter(answers)

        async def answer(_: FieldsPrompt) -> Answer:
            await asyncio.sleep(0)
            said = next(waiting)
            if isinstance(said, Exception):
                raise said
            return said

        self.flow.provider.fields = answer

    @property
    def prompts(self) -> list[FieldsPrompt]:
        return self.flow.provider.fields_prompts


@pytest.fixture
def fields() -> Fields:
    flow = Flow()
    flow.provider.context_tokens = 2_000
    flow.pages.put("acme", DOCUMENT, *PAGES)
    return Fields(flow)


async def test_values_are_checked_and_what_may_be_null_is(fields: Fields) -> None:
    fields.answers(say(RIGHT, TOTAL))
    found = await fields()
    assert found.valid
    assert found.json == {"number": "RE-17", "total": 10.5, "note": None}
    assert [(field.path, field.grounded) for field in found.fields] == [
        (("note",), False), (("number",), True), (("total",), True)
    ]  # fmt: skip
    assert (found.model, found.cached, found.repaired, found.schema) == (MODEL, False, False, "")
    assert found.consumption.provider_calls == 1
    assert found.consumption.cost.micros == 20 + 2 * 5


async def test_the_same_again_costs_nothing(fields: Fields) -> None:
    fields.answers(say(RIGHT))
    first, again = await fields(), await fields()
    assert again.cached
    assert again.fields == first.fields
    assert again.consumption.cost.micros == again.consumption.provider_calls == 0
    assert len(fields.prompts) == 1


async def test_another_schema_or_another_tenant_is_asked_anew(fields: Fields) -> None:
    fields.flow.pages.put("globex", DOCUMENT, *PAGES)
    fields.answers(say(RIGHT), say(RIGHT), say(RIGHT))
    await fields()
    await fields({**SCHEMA, "title": "another"})
    assert not (await fields(caller=STRANGER)).cached
    assert len(fields.prompts) == 3


class TestRepair:
    async def test_one_call_tells_what_is_wrong(self, fields: Fields) -> None:
        fields.answers(say(WRONG, TOTAL), say(RIGHT))
        found = await fields()
        assert found.valid
        assert found.repaired
        assert found.json["number"] == "RE-17"
        assert found.json["total"] == 10.5
        repair = fields.prompts[1]
        assert repair.stage is FieldsStage.REPAIR
        assert [(c.pointer, c.value) for c in repair.complaints] == [("/number", "17")]
        assert "pattern" in repair.complaints[0].problem
        assert found.consumption.provider_calls == 2

    async def test_what_is_no_better_is_not_taken(self, fields: Fields) -> None:
        fields.answers(say(WRONG), say(("/number", "not even that", "", 0), ("/total", "much", "", 0)))
        found = await fields()
        assert found.json["number"] == "17"
        assert [violation.path for violation in found.violations] == [("number",)]
        assert len(fields.prompts) == 2, "and nobody asks a third time"

    async def test_what_was_right_cannot_be_changed(self, fields: Fields) -> None:
        fields.answers(say(WRONG, TOTAL), say(RIGHT, ("/total", 99, "Total due 10.50 EUR", 2)))
        assert (await fields()).json["total"] == 10.5

    async def test_what_is_missing_is_not_insisted_on(self, fields: Fields) -> None:
        fields.answers(say(TOTAL))
        found = await fields()
        assert (found.missing, found.violations, found.repaired) == ((("number",),), (), False)
        assert len(fields.prompts) == 1

    async def test_a_model_that_does_not_write_is_not_asked(self, fields: Fields) -> None:
        fields.flow.provider.writes = False
        fields.answers(say(WRONG))
        assert not (await fields()).repaired

    async def test_a_repair_that_fails_is_the_requests_failure_and_what_was_bought_stays(self, fields: Fields) -> None:
        fields.answers(say(WRONG), Unavailable("PROVIDER_UNAVAILABLE", "away"), say(RIGHT))
        with pytest.raises(Unavailable):
            await fields()
        assert (await fields()).valid
        assert [prompt.stage for prompt in fields.prompts] == [
            FieldsStage.EXTRACT, FieldsStage.REPAIR, FieldsStage.REPAIR
        ]  # fmt: skip


async def test_many_parts_are_one_list_and_are_bought_apart(fields: Fields) -> None:
    fields.flow.provider.context_tokens = 400
    pages = [page(n, " ".join(f"w{n}x{i}" for i in range(150)) + f"\nInvoice number RE-{n} here") for n in range(1, 6)]
    fields.flow.pages.put("acme", DOCUMENT, *pages)
    failing = {3}

    async def answer(prompt: FieldsPrompt) -> Answer:
        numbers = [n for n in range(1, 6) if f"RE-{n} " in prompt.chunk.text]
        if failing & set(numbers):
            raise Unavailable("PROVIDER_UNAVAILABLE", "away")
        return say(*((f"/numbers/{i}", f"RE-{n}", f"Invoice number RE-{n}", n) for i, n in enumerate(numbers)))

    fields.flow.provider.fields = answer
    with pytest.raises(Unavailable):
        await fields(LONG)
    before = len(fields.prompts)
    assert before > 1
    failing.clear()
    found = await fields(LONG)
    assert found.json == {"numbers": [f"RE-{n}" for n in range(1, 6)]}
    assert [field.citation.page for field in found.fields if field.citation] == [1, 2, 3, 4, 5]
    asked = [prompt.chunk.index for prompt in fields.prompts]
    assert len(asked) == len(set(asked)) + 1, "only the part that failed was asked about twice"


async def test_a_fallback_answers_and_is_marked(fields: Fields) -> None:
    other = ScriptedProvider(context_tokens=2_000)
    other.name = "other"

    async def answer(_: FieldsPrompt) -> Answer:
        return say(RIGHT)

    other.fields = answer
    fields.flow.others["other"] = other
    fields.flow.books.prices = {**fields.flow.books.prices, "other/writer": (1, 1)}
    again = Fields(fields.flow)
    again.answers(Unavailable("PROVIDER_UNAVAILABLE", "away"))
    found = await again(fallbacks=["other/writer"])
    assert (found.model, found.degraded_from) == ("other/writer", MODEL)
    assert fields.flow.failovers == [(MODEL, "other/writer", "PROVIDER_UNAVAILABLE")]


async def test_many_at_once_are_one_run_and_one_pays(fields: Fields) -> None:
    fields.answers(say(RIGHT))
    found = await asyncio.gather(*(fields() for _ in range(20)))
    assert len(fields.prompts) == 1
    assert sorted(one.consumption.provider_calls for one in found) == [0] * 19 + [1]
    assert {json.dumps(one.json) for one in found} == {json.dumps(found[0].json)}
    await fields.savings.flush(5)
    saved = [event.operation for event in fields.flow.books.events.values()]
    assert sorted(saved) == ["fields.extract"] + ["fields.shared"] * 19


async def test_a_failed_page_is_named(fields: Fields) -> None:
    fields.flow.pages.put("acme", DOCUMENT, PAGES[0], PageFailed(2, "PAGE_CORRUPT"))
    fields.answers(say(RIGHT))
    assert (await fields()).failed_pages == (2,)


async def test_refusals_cost_nothing(fields: Fields) -> None:
    for wanted, reason in (
        ({"type": "array"}, "SCHEMA_INVALID"),
        ("schemas/unknown", "SCHEMA_NOT_FOUND"),
        (SCHEMA, "DOCUMENT_NOT_FOUND"),
    ):
        with pytest.raises((InvalidArgument, NotFound)) as caught:
            await fields(wanted, caller=STRANGER)
        assert caught.value.reason == reason
    with pytest.raises(InvalidArgument, match="MODEL_UNKNOWN"):
        await fields(model="nobody/nothing")
    assert fields.prompts == []
    assert fields.flow.books.holds == {}


async def test_a_stored_schema_answers_with_its_version(fields: Fields) -> None:
    await fields.schemas.create("acme", "invoice", SCHEMA)
    fields.answers(say(RIGHT))
    assert (await fields("schemas/invoice")).schema == "schemas/invoice@1"
    assert (await fields(SCHEMA)).cached, "the same schema is the same question"
    with pytest.raises(NotFound):
        await fields("schemas/invoice", caller=STRANGER)
