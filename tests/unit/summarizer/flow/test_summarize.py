"""The use case from request to last event."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import HoldState, MemoryPages
from services.summarizer.domain.events import Event, Finished, Progress, SentenceReady, TextDelta
from services.summarizer.domain.limits import MAX_DOCUMENT_WORDS
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.ports import DocumentStart, PageFailed
from services.summarizer.domain.sightings import MEMORY_S
from services.summarizer.domain.summarize import StreamSummarize, Summarize
from services.summarizer.domain.values import (
    Answer,
    Caller,
    Claim,
    Length,
    Options,
    Page,
    Prompt,
    Quote,
    Style,
    Summary,
    TokenCount,
)
from tests.unit.summarizer.flow.parts import (
    ALICE,
    BOB,
    DOCUMENT,
    MODEL,
    STRANGER,
    Flow,
    options,
    page,
    until,
    word_page,
)


@pytest.fixture
def flow() -> Flow:
    flow = Flow()
    flow.pages.put(ALICE.tenant, DOCUMENT, page(1, "The cat sat here.\nIt was warm."), page(2, "Dogs are kind."))
    return flow


async def ask(use_case: Summarize, caller: Caller = ALICE, wanted: Options | None = None) -> Summary:
    with act_as(caller):
        return await use_case(caller, DOCUMENT, wanted or options())


async def events_of(stream: StreamSummarize, caller: Caller = ALICE) -> list[Event]:
    with act_as(caller):
        return [event async for event in stream(caller, DOCUMENT, options())]


async def test_a_summary_carries_text_citations_and_cost(flow: Flow) -> None:
    summary = await ask(flow.summarize())
    assert summary.text == "Page 1 says so. Page 2 says so."
    assert [(c.page, c.quote) for s in summary.sentences for c in s.citations] == [
        (1, "The cat sat here."),
        (2, "Dogs are kind."),
    ]
    assert summary.grounded_share == 1
    assert (summary.document, summary.model) == (DOCUMENT, MODEL)
    assert not summary.cached
    assert not summary.extractive
    used = summary.consumption
    assert used.provider_calls == 1
    assert used.cost.micros == flow.provider.billed_micros()
    assert used.settled


async def test_boxes_are_the_parsers_and_a_quote_that_is_nowhere_leaves_no_trace(flow: Flow) -> None:
    async def half_true(prompt: Prompt) -> Answer:
        claims = (
            Claim("True.", (Quote("The cat sat here.", 0),)),
            Claim("Invented.", (Quote("The cat ate the moon entirely.", 1),)),
        )
        return flow.provider.charge(prompt, claims)

    flow.provider.behaviour = half_true
    true, invented = (await ask(flow.summarize())).sentences
    (box,) = true.citations[0].boxes
    assert (box.x0, box.y0, box.x1, box.y1) == (0, 0, 39, 10)
    assert true.grounded
    assert not invented.grounded
    assert invented.citations == ()


async def test_events_come_in_order_and_the_summary_last(flow: Flow) -> None:
    events = await events_of(flow.stream())
    kinds = [type(event) for event in events]
    assert kinds.index(TextDelta) < kinds.index(SentenceReady) < kinds.index(Finished) == len(kinds) - 1
    assert events[0] == Progress(0, 2, 0, 0)
    assert [event for event in events if isinstance(event, Progress)][-1] == Progress(2, 2, 1, 1)
    finished = events[-1]
    assert isinstance(finished, Finished)
    said = tuple(event.sentence for event in events if isinstance(event, SentenceReady))
    assert said == finished.summary.sentences


async def test_bullets_are_lines(flow: Flow) -> None:
    summary = await ask(flow.summarize(), wanted=options(style=Style.BULLETS))
    assert summary.text == "- Page 1 says so.\n- Page 2 says so."


async def test_a_second_request_is_answered_from_the_cache_for_nothing(flow: Flow) -> None:
    savings = flow.savings()
    use_case = flow.summarize(flow.stream(savings=savings))
    first = await ask(use_case)
    second = await ask(use_case, BOB)
    assert second == replace(first, cached=True, consumption=second.consumption)
    used = second.consumption
    assert (used.tokens, used.provider_calls, used.cost.micros, used.settled) == (TokenCount(0, 0), 0, 0, True)
    assert used.usage_event_ids == ()
    assert len(flow.provider.prompts) == 1
    await savings.flush(1)
    saved = [event for event in flow.books.events.values() if event.operation == "summarize.cache"]
    assert [event.tags["saved_micros"] for event in saved] == [str(first.consumption.cost.micros)]
    assert saved[0].request_id == BOB.request_id


@pytest.mark.parametrize(
    "changes",
    [
        {"length": Length.LONG},
        {"style": Style.BULLETS},
        {"language": "de"},
        {"focus": "dogs"},
    ],
    ids=str,
)
async def test_other_options_are_another_summary(flow: Flow, changes: dict[str, object]) -> None:
    use_case = flow.summarize()
    await ask(use_case)
    assert not (await ask(use_case, wanted=options(**changes))).cached


async def test_the_default_model_and_its_name_are_one_summary(flow: Flow) -> None:
    use_case = flow.summarize()
    await ask(use_case)
    assert (await ask(use_case, wanted=options(model=""))).cached


async def test_a_new_version_of_the_provider_is_another_summary(flow: Flow) -> None:
    use_case = flow.summarize()
    await ask(use_case)
    flow.provider.version = "2"
    assert not (await ask(use_case)).cached
    assert len(flow.provider.prompts) == 2


async def test_an_emptied_cache_costs_nothing_but_time(flow: Flow) -> None:
    use_case = flow.summarize()
    first = await ask(use_case)
    flow.cache.clear()
    second = await ask(use_case)
    assert len(flow.provider.prompts) == 1
    assert not second.cached
    assert (second.text, second.consumption.provider_calls) == (first.text, 0)


async def test_another_tenant_sees_nothing_of_it(flow: Flow) -> None:
    use_case = flow.summarize()
    await ask(use_case)
    with pytest.raises(NotFound):
        await ask(use_case, STRANGER)
    flow.pages.put(STRANGER.tenant, DOCUMENT, page(1, "The cat sat here.\nIt was warm."), page(2, "Dogs are kind."))
    other = await ask(use_case, STRANGER)
    assert not other.cached
    assert other.consumption.provider_calls == 1


async def test_a_document_that_is_gone_is_not_found_although_its_summary_is_cached(flow: Flow) -> None:
    use_case = flow.summarize()
    await ask(use_case)
    flow.pages.delete(ALICE.tenant, DOCUMENT)
    flow.passed_s += MEMORY_S
    with pytest.raises(NotFound):
        await ask(use_case)


async def test_one_that_was_there_a_moment_ago_is_not_asked_for_again_and_never_past_its_expiry(flow: Flow) -> None:
    use_case = flow.summarize()
    flow.pages.expiry[DOCUMENT] = flow.clock() + 0.5
    await ask(use_case)
    flow.pages.delete(ALICE.tenant, DOCUMENT)
    flow.passed_s += 0.4
    assert (await ask(use_case)).cached
    with pytest.raises(NotFound):
        await ask(use_case, STRANGER)
    flow.passed_s += 0.2
    with pytest.raises(NotFound):
        await ask(use_case)


async def test_many_at_once_pay_once(flow: Flow) -> None:
    go_on = asyncio.Event()

    async def wait(prompt: Prompt) -> Answer:
        await go_on.wait()
        return await flow.provider.answer(prompt)

    flow.provider.behaviour = wait
    savings = flow.savings()
    use_case = flow.summarize(flow.stream(savings=savings))
    asking = [asyncio.create_task(ask(use_case)) for _ in range(100)]
    await until(lambda: len(flow.joins) == 99 and flow.provider.running == 1)
    go_on.set()
    summaries = await asyncio.gather(*asking)
    assert len(flow.provider.prompts) == 1
    assert len({summary.text for summary in summaries}) == 1
    assert sum(summary.consumption.cost.micros for summary in summaries) == flow.books.settled_micros()
    await savings.flush(1)
    assert sum(event.operation == "summarize.shared" for event in flow.books.events.values()) == 99


async def test_the_run_outlives_the_one_who_began_it(flow: Flow) -> None:
    go_on = asyncio.Event()

    async def wait(prompt: Prompt) -> Answer:
        await go_on.wait()
        return await flow.provider.answer(prompt)

    flow.provider.behaviour = wait
    use_case = flow.summarize()
    first = asyncio.create_task(ask(use_case))
    await until(lambda: flow.provider.running == 1)
    second = asyncio.create_task(ask(use_case))
    await until(lambda: len(flow.joins) == 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    summary = await second
    assert summary.text
    assert summary.consumption.cost.micros == 0
    assert flow.books.settled_micros() == flow.provider.billed_micros()


async def test_a_run_that_fails_tells_everyone_the_same(flow: Flow) -> None:
    go_on = asyncio.Event()

    async def refuse(_: Prompt) -> Answer:
        await go_on.wait()
        raise ResourceExhausted("PROVIDER_RATE_LIMITED", "slowly", retry_after_s=7.0, metadata={"billed": "no"})

    flow.provider.behaviour = refuse
    use_case = flow.summarize()
    asking = [asyncio.create_task(ask(use_case)) for _ in range(5)]
    await until(lambda: len(flow.joins) == 4 and flow.provider.running == 1)
    go_on.set()
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert [(type(error), getattr(error, "retry_after_s", 0)) for error in told] == [(ResourceExhausted, 7.0)] * 5
    assert len(flow.provider.prompts) == 1
    assert flow.books.held_micros() == 0


async def test_one_whose_time_is_up_leaves_the_others_alone(flow: Flow) -> None:
    go_on = asyncio.Event()

    async def wait(prompt: Prompt) -> Answer:
        await go_on.wait()
        return await flow.provider.answer(prompt)

    async def ask_until(deadline: float) -> Summary:
        async with asyncio.timeout_at(deadline):
            with act_as(ALICE):
                return await use_case(ALICE, DOCUMENT, options(), deadline=deadline)

    flow.provider.behaviour = wait
    use_case = flow.summarize()
    now = asyncio.get_running_loop().time()
    asking = [asyncio.create_task(ask_until(now + left_s)) for left_s in (0.1, 60, 0.2, 60)]
    await until(lambda: len(flow.joins) == 3 and flow.provider.running == 1)
    for hurried in (asking[0], asking[2]):
        with pytest.raises(TimeoutError):
            await hurried
    assert flow.provider.cancelled == 0
    go_on.set()
    patient = [await asking[1], await asking[3]]
    assert [summary.sentences for summary in patient] == [patient[0].sentences] * 2
    assert len(flow.provider.prompts) == 1


async def test_who_gives_up_alone_cancels_the_provider(flow: Flow) -> None:
    async def hang(_: Prompt) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    flow.provider.behaviour = hang
    asking = asyncio.create_task(ask(flow.summarize()))
    await until(lambda: flow.provider.running == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: flow.provider.cancelled == 1)
    assert [hold.state for hold in flow.books.holds.values()] == [HoldState.HELD]


async def test_pages_that_failed_are_named_and_the_summary_is_not_kept(flow: Flow) -> None:
    flow.pages.put(ALICE.tenant, DOCUMENT, page(1, "The cat sat here."), PageFailed(2, "PAGE_TIMEOUT"))
    use_case = flow.summarize()
    assert (await ask(use_case)).failed_pages == (2,)
    again = await ask(use_case)
    assert not again.cached
    assert again.consumption.provider_calls == 0


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ((page(1, ""), page(2, "  \n ")), "DOCUMENT_HAS_NO_TEXT"),
        ((PageFailed(1, "PAGE_CORRUPT"),), "DOCUMENT_UNREADABLE"),
        ((PageFailed(1, "PAGE_TOO_LARGE", words=MAX_DOCUMENT_WORDS + 1),), "DOCUMENT_TOO_LARGE"),
    ],
    ids=["no text", "all failed", "too large"],
)
async def test_without_text_nothing_is_paid(flow: Flow, pages: tuple[Page | PageFailed, ...], reason: str) -> None:
    flow.pages.put(ALICE.tenant, DOCUMENT, *pages)
    with pytest.raises(FailedPrecondition) as caught:
        await ask(flow.summarize())
    assert caught.value.reason == reason
    assert flow.books.holds == {}


GERMAN = "Der Garten war so viele Jahre sich selbst überlassen, dass niemand mehr wusste, wer ihn angelegt hatte, und "


@pytest.mark.parametrize(("language", "fits"), [("fr", False), ("de-AT", True), ("", True)])
async def test_a_language_that_a_model_cannot_write_is_refused_before_anything_is_reserved(
    flow: Flow, language: str, fits: bool
) -> None:
    flow.provider.writes = False
    flow.pages.put(ALICE.tenant, DOCUMENT, *(page(number, GERMAN * 4) for number in range(1, 9)))
    if fits:
        assert (await ask(flow.summarize(), wanted=options(language=language))).sentences
        return
    with pytest.raises(InvalidArgument) as refused:
        await ask(flow.summarize(), wanted=options(language=language))
    assert refused.value.reason == "LANGUAGE_NOT_SUPPORTED"
    assert [field.field for field in refused.value.fields] == ["options.language"]
    assert flow.books.holds == {}
    assert flow.provider.prompts == []
    flow.provider.writes = True
    assert (await ask(flow.summarize(), wanted=options(language=language))).sentences


@pytest.mark.parametrize("name", ["scripted/reader", "openai/gpt", "writer", "scripted/"])
async def test_an_unknown_model_is_refused_by_field_with_the_known_names(flow: Flow, name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await ask(flow.summarize(), wanted=options(model=name))
    assert caught.value.reason == "MODEL_UNKNOWN"
    assert caught.value.fields[0].field == "options.model"
    assert MODEL in caught.value.message


async def test_reading_that_breaks_off_pays_for_nothing_and_closes_the_stream(flow: Flow) -> None:
    closed = asyncio.Event()

    class Cut(MemoryPages):
        async def exists(self, document: str) -> float | None:
            return None

        async def hold(self, document: str, hold_id: str) -> None:
            pass

        async def pages(
            self, document: str, within: PageRange = ALL_PAGES
        ) -> AsyncGenerator[DocumentStart | Page | PageFailed, None]:
            try:
                yield DocumentStart(2)
                yield page(1, "The cat sat here.")
                raise Unavailable("EXTRACTION_CUT", "broke off")
            finally:
                closed.set()

    with pytest.raises(Unavailable):
        await ask(flow.summarize(flow.stream(pages=Cut())))
    assert closed.is_set()
    assert flow.books.holds == {}


async def test_a_long_document_is_read_in_chunks_and_tells_its_progress(flow: Flow) -> None:
    flow.pages.put(ALICE.tenant, DOCUMENT, *(word_page(number, 30) for number in range(1, 121)))
    events = await events_of(flow.stream())
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].pages_read == 120
    assert progress[-1].chunks_done == progress[-1].chunk_count > 10
    assert len([event for event in progress if event.chunk_count == 0]) <= 62
    assert [event.chunks_done for event in progress] == sorted(event.chunks_done for event in progress)
    assert flow.books.settled_micros() == flow.provider.billed_micros()
