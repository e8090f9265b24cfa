"""Answers that nobody uses go in small batches, for as long as there are any, whatever fails meanwhile."""

import asyncio

import pytest

from services.runtime.errors import Unavailable
from services.summarizer.domain import answer_keeping
from services.summarizer.domain.answer_keeping import AT_ONCE, AnswerCleaner
from services.summarizer.domain.values import Summary
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, Flow, options, page, until

DAY_S = 86_400.0


class Kept:
    """So many answers to forget, one failure first."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, list[tuple[float, int]]()

    async def forget_unused(self, *, unused_s: float, limit: int) -> int:
        self.asked.append((unused_s, limit))
        if len(self.asked) == 1:
            raise Unavailable("DATABASE_UNAVAILABLE", "down")
        removed = min(limit, self.count)
        self.count -= removed
        return removed


async def test_it_goes_on_until_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_keeping, "EVERY_S", 0.0)
    monkeypatch.setattr(answer_keeping, "BETWEEN_S", 0.0)
    kept, forgotten, failed = Kept(2 * AT_ONCE + 3), list[int](), list[Exception]()
    cleaner = AnswerCleaner(
        kept, retention_s=30 * DAY_S, jitter=lambda: 0.5, forgotten=forgotten.append, failed=failed.append
    )
    task = asyncio.create_task(cleaner.run())
    await until(lambda: len(forgotten) == 3)
    task.cancel()
    assert forgotten == [AT_ONCE, AT_ONCE, 3]
    assert len(failed) == 1
    assert set(kept.asked) == {(30 * DAY_S, AT_ONCE)}


async def test_without_a_retention_they_stay() -> None:
    kept = Kept(1)
    await AnswerCleaner(kept, retention_s=0, jitter=lambda: 0, forgotten=lambda _: None, failed=lambda _: None).run()
    assert kept.asked == []


async def _summary(flow: Flow) -> Summary:
    summary = await flow.summarize()(ALICE, DOCUMENT, options())
    await flow.tails.close(1)
    return summary


@pytest.mark.usefixtures("for_alice")
async def test_an_empty_cache_fills_from_what_was_paid_for_and_after_its_time_it_is_paid_again() -> None:
    flow = Flow()
    flow.pages.put(ALICE.tenant, DOCUMENT, page(1, "What is said here is short."), page(2, "And here it ends."))
    first = await _summary(flow)
    flow.cache.clear()
    again = await _summary(flow)
    assert (again.cached, again.consumption.provider_calls, again.consumption.cost.micros) == (False, 0, 0)
    assert again.sentences == first.sentences
    assert (await _summary(flow)).cached, "the cache is full again"
    flow.clock.now_s += 32 * DAY_S
    assert await flow.store.forget_unused(unused_s=30 * DAY_S, limit=10) == len(flow.provider.prompts)
    flow.cache.clear()
    assert (await _summary(flow)).consumption.provider_calls == first.consumption.provider_calls > 0
