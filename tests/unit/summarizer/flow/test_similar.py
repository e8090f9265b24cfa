"""Who wants it is served with answers to near-identical texts, and pays nothing; nobody else, and no other tenant."""

import asyncio
from dataclasses import replace

import pytest

from services.runtime.errors import FailedPrecondition, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.encoding import decode_summary, encode_summary
from services.summarizer.adapters.job_encoding import decode_work, encode_work
from services.summarizer.domain.events import Finished, SentenceReady
from services.summarizer.domain.jobs import SummarizeWork
from services.summarizer.domain.purge import PurgeDocument
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.similar import Trace
from services.summarizer.domain.values import Caller, Money, Options, Page, Summary
from tests.unit.summarizer.flow.estimating import estimate_of
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, STRANGER, Flow, options, page, until

OTHER = "documents/" + "1" * 32
WANTED = options(reuse_similar=True)
SENTENCE = " Rent is 900 euros."


def prose(number: int, *, changed: bool = False) -> Page:
    """A page of 300 words and a sentence; with `changed` a few of the words are other ones."""
    words = [
        f"{'abcdefghij'[index // 30]}{'klmnopqrst'[index // 3 % 10]}{'uvw'[index % 3]}word" for index in range(300)
    ]
    if changed:
        words[100], words[200] = "misread", "otherwise"
    return page(number, f"{'nmlkjihgfe'[number]}page " + " ".join(words) + SENTENCE)


OTHER_PAGE = page(
    2, "What is on another page. " + " ".join(f"{letter * 5}" for letter in "abcdefghijklmnopqrstuvwxyz" * 2)
)


@pytest.fixture
def flow() -> Flow:
    flow = Flow()
    flow.provider.context_tokens = 100_000
    flow.pages.put(ALICE.tenant, DOCUMENT, prose(1))
    flow.pages.put(STRANGER.tenant, OTHER, prose(1, changed=True))
    other = replace(prose(1, changed=True), number=2)
    flow.pages.put(ALICE.tenant, OTHER, page(1, ""), other)
    return flow


async def ask(flow: Flow, document: str, asked: Options = WANTED, caller: Caller = ALICE, **more: object) -> Summary:
    with act_as(caller):
        summary = await flow.summarize()(caller, document, asked, **more)  # type: ignore[arg-type]  # as it is there
    await flow.tails.close(1)
    return summary


async def test_a_near_identical_document_costs_nothing_and_says_where_it_is_from(flow: Flow) -> None:
    first = await ask(flow, DOCUMENT)
    assert not first.reused
    assert not first.sentences[0].reused_from
    second = await ask(flow, OTHER)
    assert len(flow.provider.prompts) == 1
    assert second.consumption.cost.micros == 0
    assert second.consumption.provider_calls == 0
    (part,) = second.reused
    assert (part.document, part.first_page, part.last_page) == (DOCUMENT, 2, 2)
    assert second.sentences[0].reused_from == DOCUMENT
    assert [citation.page for citation in second.sentences[0].citations] == [2], "on its own page"


async def test_who_does_not_want_it_is_not_served_with_it(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    await ask(flow, OTHER)
    plain = await ask(flow, OTHER, options())
    assert not plain.reused
    assert not plain.cached
    assert len(flow.provider.prompts) == 2


async def test_who_wants_it_is_served_with_what_was_made_of_the_document_itself(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    await ask(flow, OTHER)
    again = await ask(flow, OTHER)
    assert again.cached
    assert again.reused[0].document == DOCUMENT
    await ask(flow, OTHER, options())
    own = await ask(flow, OTHER)
    assert own.cached
    assert not own.reused


async def test_texts_of_those_who_do_not_want_it_are_not_remembered(flow: Flow) -> None:
    await ask(flow, DOCUMENT, options())
    await ask(flow, OTHER)
    assert len(flow.provider.prompts) == 2


async def test_what_was_paid_for_before_is_remembered_once_somebody_wants_it(flow: Flow) -> None:
    await ask(flow, DOCUMENT, options())
    flow.cache.clear()
    await ask(flow, DOCUMENT)
    assert (await ask(flow, OTHER)).reused
    assert len(flow.provider.prompts) == 1


@pytest.mark.parametrize("changes", [{"focus": "rent"}, {"language": "de"}, {"audience": "lawyers"}])
async def test_other_options_are_another_question(flow: Flow, changes: dict[str, str]) -> None:
    await ask(flow, DOCUMENT)
    assert not (await ask(flow, OTHER, replace(WANTED, **changes))).reused  # type: ignore[arg-type]  # all are text


async def test_another_version_of_the_provider_is_another_question(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    flow.provider.version = "2"
    assert not (await ask(flow, OTHER)).reused


async def test_another_amount_is_paid_for(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    text = prose(1, changed=True).text.replace("900", "901")
    flow.pages.put(ALICE.tenant, OTHER, page(1, text))
    assert not (await ask(flow, OTHER)).reused
    assert len(flow.provider.prompts) == 2


async def test_no_answer_crosses_tenants(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    stranger = await ask(flow, OTHER, caller=STRANGER)
    assert not stranger.reused
    assert stranger.consumption.provider_calls == 1


async def test_a_model_that_costs_nothing_is_asked(flow: Flow) -> None:
    flow.provider.bills_unanswered = False
    await ask(flow, DOCUMENT)
    assert not (await ask(flow, OTHER)).reused


async def test_it_is_gone_with_the_document_that_it_was_bought_for(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    await ask(flow, OTHER)
    await PurgeDocument(results=flow.store, cache=flow.cache)(ALICE.tenant, DOCUMENT)
    again = await ask(flow, OTHER)
    assert not again.cached, "the cached summary was made of it"
    assert not again.reused
    assert len(flow.provider.prompts) == 2


async def test_what_was_made_of_a_reused_answer_goes_with_it_too(flow: Flow) -> None:
    """A reduction is bought for one document, out of answers that were bought for another one."""
    flow.provider.context_tokens = 474
    flow.pages.put(ALICE.tenant, OTHER, prose(1, changed=True), OTHER_PAGE)
    await ask(flow, DOCUMENT)
    assert (await ask(flow, OTHER)).reused
    calls = len(flow.provider.prompts)
    assert calls == 3, "its own page, and one call to make one of both"
    flow.cache.clear()
    await ask(flow, OTHER)
    assert len(flow.provider.prompts) == calls
    assert await flow.store.purge(ALICE.tenant, DOCUMENT) == 2
    assert await flow.store.purge(ALICE.tenant, OTHER) == 1


async def test_a_document_that_is_deleted_while_its_answer_is_being_reused_leaves_nothing(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    put = flow.cache.put

    async def deleted_first(tenant: str, key: bytes, summary: Summary) -> None:
        await PurgeDocument(results=flow.store, cache=flow.cache)(ALICE.tenant, DOCUMENT)
        await put(tenant, key, summary)

    flow.cache.put = deleted_first  # type: ignore[method-assign]
    assert (await ask(flow, OTHER)).reused
    assert await flow.cache.purge(ALICE.tenant, OTHER) == 0


async def test_only_sentences_about_reused_pages_are_marked(flow: Flow) -> None:
    flow.provider.context_tokens = 474
    flow.pages.put(ALICE.tenant, OTHER, prose(1, changed=True), OTHER_PAGE)
    await ask(flow, DOCUMENT)
    summary = await ask(flow, OTHER)
    marks = {citation.page: sentence.reused_from for sentence in summary.sentences for citation in sentence.citations}
    assert marks == {1: DOCUMENT, 2: ""}


async def test_it_takes_no_money_and_fits_any_bound(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    assert (await ask(flow, OTHER, purse=Purse(Money("USD", 0)))).reused
    with pytest.raises(FailedPrecondition):
        await ask(flow, OTHER, replace(WANTED, focus="rent"), purse=Purse(Money("USD", 0)))


async def test_what_it_saved_is_told(flow: Flow) -> None:
    cost = (await ask(flow, DOCUMENT)).consumption.cost.micros
    savings = flow.savings()
    with act_as(ALICE):
        await flow.summarize(flow.stream(savings=savings))(ALICE, OTHER, WANTED)
    await savings.flush(1)
    (event,) = [event for event in flow.books.events.values() if event.operation == "summarize.similar"]
    assert event.document == OTHER
    assert event.tags == {"saved_micros": str(cost), "saved_currency": "USD"}


async def test_a_ledger_that_tells_no_price_is_no_reason_to_fail(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    flow.books.prices = {}
    assert (await ask(flow, OTHER)).reused
    assert flow.dropped == [1]


@pytest.mark.usefixtures("for_alice")
async def test_an_estimate_knows_and_remembers_nothing(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    estimate = estimate_of(flow)
    found = await estimate(ALICE, OTHER, WANTED)
    assert (found.chunk_count, found.free_chunk_count, found.expected.cost.micros) == (1, 1, 0)
    plain = await estimate(ALICE, OTHER, options())
    assert (plain.free_chunk_count, plain.expected.calls) == (0, 1)
    await ask(flow, OTHER)
    assert (await estimate(ALICE, OTHER, WANTED)).cached
    assert not (await estimate(ALICE, OTHER, options())).cached


async def test_what_cannot_be_remembered_was_paid_for_all_the_same(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(tenant: str, traces: list[Trace]) -> None:
        raise Unavailable("DATABASE_UNAVAILABLE", "down")

    monkeypatch.setattr(flow.similar, "keep", away)
    assert (await ask(flow, DOCUMENT)).sentences


async def test_listeners_who_want_it_and_others_have_runs_of_their_own(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    reused, plain = await asyncio.gather(ask(flow, OTHER), ask(flow, OTHER, options()))
    assert reused.reused
    assert not plain.reused
    await until(lambda: not flow.joins)


async def test_a_stream_tells_it_with_each_sentence(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    for cached in (False, True):
        with act_as(ALICE):
            events = [event async for event in flow.stream()(ALICE, OTHER, WANTED)]
        (sentence,) = [event.sentence for event in events if isinstance(event, SentenceReady)]
        (summary,) = [event.summary for event in events if isinstance(event, Finished)]
        assert sentence.reused_from == DOCUMENT
        assert summary.cached is cached


async def test_it_is_kept_as_it_is_in_caches_and_jobs(flow: Flow) -> None:
    await ask(flow, DOCUMENT)
    summary = await ask(flow, OTHER)
    kept = decode_summary("acme", b"k", encode_summary("acme", b"k", summary))
    assert kept.sentences == summary.sentences
    assert [(part.document, part.first_page, part.last_page) for part in kept.reused] == [(DOCUMENT, 2, 2)]
    assert kept.scans == summary.scans
    for work in (
        SummarizeWork(WANTED, ()),
        SummarizeWork(replace(WANTED, ocr_model="reader/scan", anonymise=()), ("a/b",)),
    ):
        assert decode_work(encode_work(work)) == work
    assert encode_work(SummarizeWork(options(), ())) != encode_work(SummarizeWork(WANTED, ()))
