"""Vectors of documents: how pages are divided, what is paid and what is not, what happens where something fails."""

import asyncio
import uuid
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.errors import (
    FailedPrecondition,
    NotFound,
    PagemeshError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory_vectors import MemoryVectors
from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.embedding import (
    MAX_BATCH,
    MAX_BATCH_BYTES,
    PASSAGE_CHARS,
    Embedded,
    EmbedDocument,
    EmbedQuery,
    Vectors,
    batches_of,
    passages_of,
)
from services.summarizer.domain.limits import MAX_PAGE_CHARS
from services.summarizer.domain.models import Model
from services.summarizer.domain.ports import Abilities, PageFailed
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.values import Answer, Caller, Money, Prompt, Stage, TokenCount
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, STRANGER, Flow, ScriptedProvider, page
from tests.unit.summarizer.flow.test_model_policy import Fixed

NAME = "scripted/vectors"
LONG = "Bees make honey. " * 400


@dataclass
class World:
    flow: Flow = field(default_factory=Flow)
    fails: dict[int, PagemeshError] = field(default_factory=dict)
    """Errors by the number of the call, from 0."""
    configured: bool = True
    prompts: list[Prompt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.provider = ScriptedProvider(self._answer)
        self.provider.count = self._count  # type: ignore[method-assign, assignment]
        self.flow.books.prices = {NAME: (1_000_000, 0)}
        self.shelf = MemoryVectors(self.flow.pages)

    @staticmethod
    def _count(prompt: Prompt) -> TokenCount:
        return TokenCount(sum(len(text) for text in prompt.texts), 0)

    async def _answer(self, prompt: Prompt) -> Answer:
        self.prompts.append(prompt)
        error = self.fails.pop(len(self.prompts) - 1, None)
        await asyncio.sleep(0)
        if error is not None:
            raise error
        vectors = tuple(text.encode()[:2].ljust(2) for text in prompt.texts)
        tokens = self._count(prompt)
        self.provider.bill.append(tokens)
        return Answer((), tokens, vectors=vectors)

    def vectors(self) -> Vectors:
        abilities = Abilities(20_000, 0, writes=False, bills_unanswered=True)
        model = Model(NAME, "vectors", self.provider, abilities) if self.configured else None
        return Vectors(model=model, models=self.flow.models(), results=self.flow.store, calls=self.flow.paid())

    async def embed(self, caller: Caller = ALICE, purse: Purse | None = None) -> Embedded:
        keeper = Keeper(
            pages=self.flow.pages,
            results=self.flow.store,
            cache=self.flow.cache,
            tails=self.flow.tails,
            act_as=act_as,
            new_id=lambda: str(uuid.uuid4()),
        )
        use_case = EmbedDocument(vectors=self.vectors(), pages=self.flow.pages, shelf=self.shelf, keeper=keeper)
        with act_as(caller):
            return await use_case(caller, DOCUMENT, purse)

    async def query(self, text: str) -> tuple[str, bytes]:
        with act_as(ALICE):
            found = await EmbedQuery(self.vectors())(ALICE, text)
        return found.model, found.vector

    def billed(self) -> int:
        return sum(tokens.input_tokens for tokens in self.provider.bill)


@given(st.text(alphabet=st.sampled_from("ab \n\U0001f41d\ud800"), max_size=6_000))
@settings(max_examples=60, deadline=None)
def test_passages_hold_every_word_within_their_bounds_and_are_the_same_again(text: str) -> None:
    passages = list(passages_of(1, text))
    assert "".join("".join(each.text.split()) for each in passages) == "".join(text.replace("\ud800", "?").split())
    assert all(0 < len(each.text) <= PASSAGE_CHARS for each in passages)
    assert [each.part for each in passages] == list(range(len(passages)))
    assert passages == list(passages_of(1, text))
    batches = list(batches_of(passages))
    assert [each for batch in batches for each in batch] == passages
    for batch in batches:
        assert len(batch) <= MAX_BATCH
        assert sum(len(each.text.encode()) for each in batch) <= MAX_BATCH_BYTES


def test_the_largest_page_has_bounded_passages_and_words_are_not_cut() -> None:
    assert len(list(passages_of(1, "\U0001f41d" * MAX_PAGE_CHARS))) == 134
    assert all(each.text.endswith(".") for each in passages_of(1, LONG))
    assert list(passages_of(1, " \n ")) == []


async def test_a_document_is_embedded_and_paid_once() -> None:
    world = World()
    world.flow.pages.put("acme", DOCUMENT, page(1, LONG), PageFailed(2, "PAGE_TIMEOUT"), page(3, "Wasps do not."))
    done = await world.embed()
    assert (done.model, done.page_count, done.failed_pages) == (NAME, 2, (2,))
    assert done.consumption.cost == Money("USD", world.billed())
    assert world.flow.books.settled_micros() == world.billed() > 0
    model, kept = world.shelf.kept["acme", DOCUMENT]
    assert (model, {page for page, _ in kept}, len(kept)) == (NAME, {1, 3}, done.passage_count)
    assert kept[3, 0] == b"Wa"
    calls = len(world.prompts)
    world.shelf.kept.clear()
    again = await world.embed()
    assert (len(world.prompts), again.consumption.cost.micros, again.passage_count) == (calls, 0, done.passage_count)
    assert world.shelf.kept["acme", DOCUMENT] == (model, kept)
    assert {event.operation for event in world.flow.books.events.values()} == {"embed"}
    assert not world.flow.pages.holds


async def test_after_a_failure_the_next_try_pays_for_the_rest_alone() -> None:
    world = World(fails={2: Unavailable("PROVIDER_UNAVAILABLE", "down", metadata={"billed": "no"})})
    world.flow.pages.put("acme", DOCUMENT, *(page(number, f"{number} {LONG}") for number in range(1, 21)))
    with pytest.raises(Unavailable, match="PROVIDER_UNAVAILABLE"):
        await world.embed()
    bought, asked = len(world.provider.bill), len(world.prompts)
    assert asked <= 5, "no call was begun after the failure"
    assert bought == asked - 1
    assert not world.shelf.kept
    done = await world.embed()
    total = sum(len(prompt.texts) for prompt in world.prompts) - len(world.prompts[2].texts)
    assert total == done.passage_count, "no passage was sent twice but those of the call that failed"
    assert world.flow.books.settled_micros() == world.billed()
    assert world.flow.books.held_micros() == 0


async def test_max_cost_and_budgets_bound_it() -> None:
    world = World()
    world.flow.pages.put("acme", DOCUMENT, *(page(number, LONG) for number in range(1, 21)))
    with pytest.raises(FailedPrecondition, match="MAX_COST_EXCEEDED"):
        await world.embed(purse=Purse(Money("USD", 40_000)))
    assert 0 < world.billed() <= 40_000
    world.flow.books.budget_micros = world.billed() + 100
    with pytest.raises(ResourceExhausted, match="BUDGET_EXCEEDED"):
        await world.embed()


async def test_what_cannot_be_embedded() -> None:
    world = World()
    with pytest.raises(NotFound):
        await world.embed()
    world.flow.pages.put("acme", DOCUMENT, page(1, ""), PageFailed(2, "PAGE_TIMEOUT"))
    with pytest.raises(FailedPrecondition, match="DOCUMENT_HAS_NO_TEXT"):
        await world.embed()
    with pytest.raises(NotFound):
        await world.embed(STRANGER)
    world.configured = False
    with pytest.raises(FailedPrecondition, match="EMBEDDING_NOT_CONFIGURED"):
        await world.embed()
    with pytest.raises(FailedPrecondition, match="EMBEDDING_NOT_CONFIGURED"):
        await world.query("")


async def test_a_query_is_paid_once_and_its_model_is_free() -> None:
    world = World()
    assert await world.query(" ") == (NAME, b"")
    assert not world.prompts
    assert await world.query("honey") == await world.query(" honey ") == (NAME, b"ho")
    (event,) = world.flow.books.events.values()
    assert (event.operation, event.document, len(world.prompts)) == (Stage.EMBED_QUERY.value, "", 1)


async def test_a_tenant_may_keep_its_texts_from_the_model() -> None:
    world = World()
    world.flow.pages.put("acme", DOCUMENT, page(1, "Bees."))
    world.flow.policies = Fixed(allowed_models=("mistral/*",))
    with pytest.raises(PermissionDenied, match="MODEL_NOT_ALLOWED"):
        await world.embed()
    with pytest.raises(PermissionDenied, match="MODEL_NOT_ALLOWED"):
        await world.query("honey")
    assert not world.prompts
    world.flow.policies = Fixed(allowed_models=("scripted/*",))
    assert (await world.embed()).page_count == 1


async def test_another_tenant_pays_for_the_same_text() -> None:
    world = World()
    for tenant in ("acme", "globex"):
        world.flow.pages.put(tenant, DOCUMENT, page(1, "Bees."))
    await world.embed()
    await world.embed(STRANGER)
    assert len(world.prompts) == 2
