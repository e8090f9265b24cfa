"""A job spends what it may over all of its attempts, and not a micro-unit more."""

import asyncio
import contextlib
import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.errors import FailedPrecondition, PagemeshError, Unavailable
from services.summarizer.domain.fields_values import Extraction
from services.summarizer.domain.job_policy import judge
from services.summarizer.domain.jobs import JobState, Priority
from services.summarizer.domain.values import Answer, Money
from tests.unit.summarizer.fields.test_extract_fields import RIGHT, WRONG, say
from tests.unit.summarizer.flow.parts import OUTPUT_TOKENS, until
from tests.unit.summarizer.flow.test_job_kinds import INLINE, Shop, order


def usd(micros: int) -> Money:
    return Money("USD", micros)


async def claim_of(shop: Shop):  # type: ignore[no-untyped-def]  # a claim
    claim = await shop.store.claim(tuple(Priority), worker="w", lease_s=60, most_of_tenant=100)
    assert claim is not None
    return claim


async def test_a_job_ends_at_its_bound_and_goes_on_with_a_larger_one() -> None:
    shop = Shop()
    job = await shop.desk.create(order(INLINE, max_cost=usd(1)))
    claim = await claim_of(shop)
    with pytest.raises(FailedPrecondition, match="RetryJob with a larger max_cost") as refused:
        await shop.do(claim, shop.told.append)
    assert refused.value.reason == "MAX_COST_EXCEEDED"
    verdict = judge(refused.value, tries=1, max_attempts=3, jitter=lambda: 0.0)
    assert verdict.delay_s is None
    await shop.store.finish(claim, JobState.FAILED, result=None, fault=verdict.fault, keep_s=1)
    assert (shop.fields.prompts, shop.store.calls) == ([], {})
    needed = int(refused.value.metadata["needed_micros"])
    await shop.desk.retry(order(INLINE).caller, job.job_id, max_cost=usd(needed))
    shop.fields.answers(say(RIGHT))
    found = await shop.do(await claim_of(shop), shop.told.append)
    assert isinstance(found, Extraction)
    spent = (await shop.desk.get("acme", job.job_id)).spent_micros
    assert spent == found.consumption.cost.micros == shop.flow.books.settled_micros() <= needed


async def test_a_call_that_nobody_saw_the_end_of_counts_in_the_next_attempt() -> None:
    shop = Shop()
    job = await shop.desk.create(order(INLINE, max_cost=usd(2 * OUTPUT_TOKENS + 200)))

    async def hang(_: object) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    shop.flow.provider.fields = hang
    claim = await claim_of(shop)
    doing = asyncio.create_task(shop.do(claim, shop.told.append))
    await until(lambda: len(shop.fields.prompts) == 1)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    await shop.flow.tails.close(1)
    await shop.store.hand_back(claim)
    held = shop.flow.books.held_micros()
    assert (await shop.desk.get("acme", job.job_id)).spent_micros == held > 2 * OUTPUT_TOKENS
    with pytest.raises(FailedPrecondition) as refused:
        await shop.do(await claim_of(shop), shop.told.append)
    assert refused.value.metadata["spent_micros"] == str(held)


async def test_a_worker_that_was_cut_off_calls_nobody() -> None:
    shop = Shop()
    await shop.desk.create(order(INLINE, max_cost=usd(1_000)))
    old = await claim_of(shop)
    await shop.store.hand_back(old)
    await claim_of(shop)
    with pytest.raises(PagemeshError, match="JOB_FENCED_OFF"):
        await shop.do(old, shop.told.append)
    await shop.flow.tails.close(1)
    assert (shop.fields.prompts, shop.flow.books.held_micros(), shop.store.calls) == ([], 0, {})


@settings(max_examples=40, deadline=None)
@given(
    most=st.integers(0, 1_500),
    outcomes=st.lists(st.sampled_from(["right", "wrong", "charged", "unknown", "crash"]), min_size=1, max_size=8),
)
def test_no_job_spends_more_over_its_attempts(most: int, outcomes: list[str]) -> None:
    asyncio.run(_attempts(most, outcomes))


async def _attempts(most: int, outcomes: list[str]) -> None:
    shop = Shop()
    await shop.desk.create(replace(order(INLINE), max_cost=usd(most)))
    said = itertools.cycle(outcomes)

    async def answer(_: object) -> Answer:
        match next(said):
            case "right":
                return say(RIGHT)
            case "wrong":
                return say(WRONG)
            case "charged":
                usage = {"input_tokens": "9", "output_tokens": "7"}
                raise Unavailable("PROVIDER_INVALID_ANSWER", "x", metadata=usage)
            case "crash":
                raise asyncio.CancelledError
        raise Unavailable("PROVIDER_CUT", "it may have been charged")

    shop.flow.provider.fields = answer
    for _ in outcomes:
        claim = await claim_of(shop)
        with contextlib.suppress(PagemeshError, asyncio.CancelledError):
            await shop.do(claim, shop.told.append)
        await shop.flow.tails.close(1)
        standing = shop.flow.books.settled_micros() + shop.flow.books.held_micros()
        assert standing == (await shop.desk.get("acme", claim.job_id)).spent_micros <= most
        await shop.store.hand_back(claim)
