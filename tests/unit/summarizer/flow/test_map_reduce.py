"""Every chunk is asked about once, and never again once its answer was committed."""

import asyncio

import pytest

from services.runtime.errors import FailedPrecondition, Unavailable
from services.summarizer.domain.map_reduce import FAN_OUT, MAX_PARTS, Bill, Job, MapReduce, Part
from services.summarizer.domain.values import Answer, Chunk, Claim, Prompt, Stage
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, MODEL, Flow, options, until

pytestmark = pytest.mark.usefixtures("for_alice")


@pytest.fixture
def flow() -> Flow:
    return Flow()


def chunk(number: int, text: str = "") -> Chunk:
    text = text or f"Chunk {number} has some words."
    return Chunk(number, text, ((0, len(text), number + 1),))


async def run(flow: Flow, chunks: list[Chunk], bill: Bill | None = None, heard: list[str] | None = None) -> Part:
    job = Job(ALICE, DOCUMENT, options(), flow.models().resolve(MODEL))
    done: list[None] = []
    heard = heard if heard is not None else []
    claims = await MapReduce(results=flow.store, paid=flow.paid()).answer(
        job,
        chunks,
        bill or Bill(),
        chunk_done=lambda: done.append(None),
        on_text=heard.append,
    )
    assert len(done) == len(chunks)
    return claims


async def test_one_chunk_is_one_call_and_its_text_is_heard(flow: Flow) -> None:
    bill, heard = Bill(), list[str]()
    claims = await run(flow, [chunk(0)], bill, heard)
    assert [prompt.stage for prompt in flow.provider.prompts] == [Stage.MAP]
    assert heard == [claim.text for claim in claims]
    assert bill.consumption().cost.micros == flow.provider.billed_micros()


async def test_several_chunks_are_reduced_and_only_the_last_text_is_heard(flow: Flow) -> None:
    bill, heard = Bill(), list[str]()
    claims = await run(flow, [chunk(n) for n in range(5)], bill, heard)
    stages = [prompt.stage for prompt in flow.provider.prompts]
    assert stages == [Stage.MAP] * 5 + [Stage.REDUCE]
    assert heard == [claim.text for claim in claims]
    used = bill.consumption()
    assert (used.provider_calls, used.settled, len(set(used.usage_event_ids))) == (6, True, 6)
    assert used.cost.micros == flow.provider.billed_micros() == flow.books.settled_micros()


async def test_claims_are_reduced_in_the_order_of_the_document(flow: Flow) -> None:
    await run(flow, [chunk(n) for n in range(9)])
    pages = [claim.quotes[0].page for claim in flow.provider.prompts[-1].claims]
    assert pages == sorted(pages)


async def test_a_tree_is_built_where_one_call_cannot_hold_all_and_a_part_alone_waits(flow: Flow) -> None:
    flow.provider.context_tokens = 100_000
    await run(flow, [chunk(n) for n in range(MAX_PARTS * 2 + 1)])
    stages = [prompt.stage for prompt in flow.provider.prompts]
    assert stages.count(Stage.REDUCE) == 2 + 1


async def test_the_context_of_the_model_bounds_a_reduction(flow: Flow) -> None:
    flow.provider.context_tokens = 145
    await run(flow, [chunk(n) for n in range(12)])
    for prompt in flow.provider.prompts:
        most = flow.provider.count(prompt)
        assert most.input_tokens + most.output_tokens <= flow.provider.context_tokens


async def test_a_context_that_holds_no_two_parts_is_refused(flow: Flow) -> None:
    async def wordy(prompt: Prompt) -> Answer:
        return flow.provider.charge(prompt, (Claim("word " * 60, ()),))

    flow.provider.behaviour = wordy
    with pytest.raises(FailedPrecondition) as caught:
        await run(flow, [chunk(n) for n in range(3)])
    assert caught.value.reason == "MODEL_TOO_SMALL"


async def test_what_was_committed_is_not_paid_again(flow: Flow) -> None:
    chunks = [chunk(n) for n in range(5)]
    first = await run(flow, chunks)
    calls, bill = len(flow.provider.prompts), Bill()
    assert await run(flow, chunks, bill) == first
    assert len(flow.provider.prompts) == calls
    assert bill.consumption().provider_calls == 0
    assert bill.consumption().cost.micros == 0


async def test_after_a_failure_only_the_missing_chunks_are_paid(flow: Flow) -> None:
    async def third_fails(prompt: Prompt) -> Answer:
        if prompt.chunk is not None and prompt.chunk.index == 2:
            raise Unavailable("DOWN", "down", metadata={"sent": "no"})
        return await flow.provider.answer(prompt)

    flow.provider.behaviour = third_fails
    chunks = [chunk(n) for n in range(4)]
    with pytest.raises(Unavailable):
        await run(flow, chunks)
    paid_for = len(flow.provider.bill)
    flow.provider.behaviour = flow.provider.answer
    await run(flow, chunks)
    assert len(flow.provider.bill) == 4 + 1
    assert paid_for >= 1
    assert flow.books.settled_micros() == flow.provider.billed_micros()


async def test_the_same_text_twice_is_one_call(flow: Flow) -> None:
    same = chunk(0)
    await run(flow, [same, Chunk(1, same.text, same.spans)])
    assert [prompt.stage for prompt in flow.provider.prompts] == [Stage.MAP, Stage.REDUCE]


async def test_few_calls_are_under_way_at_once(flow: Flow) -> None:
    gate = asyncio.Event()

    async def wait(prompt: Prompt) -> Answer:
        await gate.wait()
        return await flow.provider.answer(prompt)

    flow.provider.behaviour = wait
    task = asyncio.create_task(run(flow, [chunk(n) for n in range(12)]))
    await until(lambda: flow.provider.running == FAN_OUT)
    gate.set()
    await task
    assert flow.provider.most_running == FAN_OUT


async def test_after_a_failure_calls_under_way_end_and_no_new_one_begins(flow: Flow) -> None:
    gate = asyncio.Event()

    async def first_fails(prompt: Prompt) -> Answer:
        assert prompt.chunk is not None
        if prompt.chunk.index == 0:
            raise Unavailable("DOWN", "down", metadata={"sent": "no"})
        await gate.wait()
        return await flow.provider.answer(prompt)

    flow.provider.behaviour = first_fails
    task = asyncio.create_task(run(flow, [chunk(n) for n in range(12)]))
    await until(lambda: flow.provider.running == FAN_OUT - 1 and "DOWN" in flow.outcomes)
    gate.set()
    with pytest.raises(Unavailable):
        await task
    assert len(flow.provider.prompts) == FAN_OUT
    assert len(flow.provider.bill) == FAN_OUT - 1
    assert flow.books.settled_micros() == flow.provider.billed_micros()


async def test_parts_that_say_nothing_are_left_out(flow: Flow) -> None:
    async def only_second(prompt: Prompt) -> Answer:
        if prompt.chunk is not None and prompt.chunk.index != 1:
            return flow.provider.charge(prompt, ())
        return await flow.provider.answer(prompt)

    flow.provider.behaviour = only_second
    claims = await run(flow, [chunk(n) for n in range(3)])
    assert [claim.quotes[0].page for claim in claims] == [2]
    assert Stage.REDUCE not in [prompt.stage for prompt in flow.provider.prompts]
