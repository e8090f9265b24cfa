"""Estimates of fields go the way of the run: they ask nobody, and come close to what the run then costs."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfRange
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory_prices import MemoryPrices
from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.domain.estimate import Estimate
from services.summarizer.domain.estimate_fields import EstimateFields
from services.summarizer.domain.extract_fields import Wanted
from services.summarizer.domain.page_range import PageRange
from services.summarizer.domain.personal_kinds import ALL, Kind
from services.summarizer.domain.ports import Provider
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.values import Money
from tests.fakes.made_forms import SCHEMA, SCHEMA_OF_LINES, Form, made_form
from tests.fakes.mistral_server import MistralServer
from tests.fakes.writing_model import Writer
from tests.unit.summarizer.fields.test_extract_fields import PAGES, RIGHT, TOTAL, WRONG, Fields, say
from tests.unit.summarizer.fields.test_extract_fields import SCHEMA as PATTERNED
from tests.unit.summarizer.flow.estimating import PRICES, SMALL, estimating_fields, flow_with, thoughts_of
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, MODEL, PAGE_MICROS, READER, STRANGER, Flow, page
from tests.unit.summarizer.flow.scanning import draw, scan

pytestmark = pytest.mark.usefixtures("for_alice")
GOAL = 0.15
FORMS = tuple(made_form(seed, rows=rows, prose=10) for seed, rows in enumerate((0, 8, 30, 60), start=1))


@pytest.fixture
def fields() -> Fields:
    flow = Flow()
    flow.provider.context_tokens = 2_000
    flow.pages.put("acme", DOCUMENT, *PAGES)
    return Fields(flow)


@pytest.fixture
async def writer() -> AsyncIterator[Provider]:
    """Mistral's models behind a server that finds what the forms hold and charges for every token."""
    entries = [entry for form in FORMS for entry in form.entries]
    with MistralServer(says=Writer(entries=entries), count_text=tekken_counter()) as server:
        async with MistralProvider(api_key=SecretStr("key"), url=server.url, count_text=tekken_counter()) as provider:
            yield provider


async def estimate(fields: Fields, schema: dict[str, Any] = PATTERNED, **more: Any) -> Estimate:
    """The estimate over the same parts."""
    found = EstimateFields(thoughts_of(fields.flow), schemas=fields.schemas)
    return await found(ALICE, DOCUMENT, Wanted(schema=schema), **more)


def pages_of(form: Form) -> list[Any]:
    return [page(number, text) for number, text in enumerate(form.pages, start=1)]


@pytest.mark.parametrize("schema", [SCHEMA, SCHEMA_OF_LINES], ids=["single", "lists"])
async def test_the_runs_cost_what_was_expected(writer: Provider, schema: dict[str, Any]) -> None:
    expected = billed = 0
    for form in FORMS:
        found, cost = await estimating_fields(writer, SMALL, MemoryPrices(PRICES), pages_of(form), schema)
        assert found.low.cost.micros <= cost <= found.high.cost.micros
        assert found.low.duration_s < found.expected.duration_s < found.high.duration_s
        assert found.page_count == len(form.pages)
        expected, billed = expected + found.expected.cost.micros, billed + cost
    assert abs(expected - billed) <= GOAL * billed


async def test_a_model_that_writes_nothing_is_expected_to_say_no_less_than_its_least(fields: Fields) -> None:
    fields.flow.provider.writes = False
    nowhere = {"type": "object", "properties": {"ship": {"type": "string", "description": "nowhere in the text"}}}
    found = await estimate(fields, nowhere)
    assert (found.low.tokens.output_tokens, found.expected.tokens.output_tokens) == (0, 0)


async def test_nothing_is_called_held_or_kept(fields: Fields) -> None:
    found = await estimate(fields)
    assert (found.expected.calls, found.chunk_count, found.free_chunk_count) == (1, 1, 0)
    assert (found.high.calls, found.price_book_version) == (2, 1), "the longest has a second call about what is wrong"
    flow = fields.flow
    assert (fields.prompts, flow.books.holds, flow.books.events) == ([], {}, {})
    assert (flow.pages.holds, flow.pages.processed) == ({}, [])


async def test_what_was_paid_for_comes_free_with_its_second_call(fields: Fields) -> None:
    fields.answers(say(WRONG, TOTAL), say(RIGHT))
    assert (await fields()).repaired
    known = await estimate(fields)
    assert (known.expected.calls, known.high.calls, known.high.cost) == (0, 0, Money("USD", 0))
    assert known.free_chunk_count == known.chunk_count == 1


async def test_a_second_call_that_is_known_to_come_is_expected(fields: Fields) -> None:
    fields.answers(say(WRONG, TOTAL))
    bound = Purse(Money("USD", 10 + 100 * 2 + 10))
    assert (await fields(purse=bound)).repair_unaffordable
    found = await estimate(fields)
    assert (found.free_chunk_count, found.low.calls, found.expected.calls, found.high.calls) == (1, 1, 1, 1)
    fields.answers(say(RIGHT))
    repaired = await fields()
    assert repaired.repaired
    assert found.low.cost.micros <= repaired.consumption.cost.micros <= found.high.cost.micros


async def test_a_high_price_is_a_bound_that_no_call_meets(writer: Provider) -> None:
    for form in FORMS:
        found, _ = await estimating_fields(writer, SMALL, MemoryPrices(PRICES), pages_of(form), SCHEMA_OF_LINES)
        again = Fields(flow_with(writer, SMALL, pages_of(form)))
        extraction = await again(SCHEMA_OF_LINES, purse=Purse(found.high.cost))
        assert not extraction.repair_unaffordable


async def test_a_range_of_pages_is_cheaper_and_what_the_run_reads(fields: Fields) -> None:
    whole, part = await estimate(fields), await estimate(fields, within=PageRange(2, 9))
    assert (whole.page_count, part.page_count) == (2, 1)
    assert part.expected.tokens.input_tokens < whole.expected.tokens.input_tokens
    fields.answers(say(TOTAL))
    found = await fields(within=PageRange(2, 9))
    assert [value.path for value in found.fields if value.grounded] == [("total",)]
    assert "Invoice number" not in fields.prompts[0].chunk.text
    assert found.consumption.tokens.input_tokens == 20
    with pytest.raises(OutOfRange) as past:
        await estimate(fields, within=PageRange(3))
    assert (past.value.reason, past.value.fields[0].field) == ("PAGE_OUT_OF_RANGE", "first_page")
    with pytest.raises(OutOfRange):
        await fields(within=PageRange(3))
    assert fields.flow.pages.holds == {}


async def test_other_pages_are_another_run(fields: Fields) -> None:
    fields.answers(say(RIGHT), say(TOTAL))
    first, second = await fields(within=PageRange(1, 1)), await fields(within=PageRange(2))
    assert not first.cached
    assert not second.cached
    assert (await fields(within=PageRange(1, 1))).cached


async def test_scans_and_personal_data_are_counted(fields: Fields) -> None:
    flow = fields.flow
    draw(flow, page(1, "Total due 10.50 EUR, write to max@example.org"), scan(2, "A page"), said={2: "A page"})
    found, without = await estimate(fields, ocr_model=READER), await estimate(fields)
    assert (found.ocr_model, found.ocr_page_count) == (READER, 1)
    assert found.expected.calls == without.expected.calls + 1
    assert found.expected.cost.micros >= PAGE_MICROS
    assert not flow.reader.calls
    hidden = await estimate(fields, anonymise=ALL)
    assert hidden.anonymised == {Kind.EMAIL: 1}


async def test_refusals_are_those_of_the_run(fields: Fields) -> None:
    with pytest.raises(InvalidArgument) as unknown:
        await estimate(fields, model="nobody/nothing")
    assert unknown.value.fields[0].field == "fields.options.model"
    with pytest.raises(InvalidArgument) as schema:
        await estimate(fields, {"type": "string"})
    assert schema.value.fields[0].field == "fields.json_schema"
    with pytest.raises(NotFound) as stored:
        found = EstimateFields(thoughts_of(fields.flow), schemas=fields.schemas)
        await found(ALICE, DOCUMENT, Wanted(stored="schemas/unknown"))
    assert stored.value.reason == "SCHEMA_NOT_FOUND"
    with pytest.raises(FailedPrecondition) as unpriced:
        thoughts = thoughts_of(fields.flow, prices=MemoryPrices({}))
        await EstimateFields(thoughts, schemas=fields.schemas)(ALICE, DOCUMENT, Wanted(schema=PATTERNED), model=MODEL)
    assert unpriced.value.reason == "MODEL_UNPRICED"
    with act_as(STRANGER), pytest.raises(NotFound):
        await estimate(fields)
