"""A tenant says which models may see its documents, and in which order: nothing is sent to any other."""

import asyncio
from dataclasses import replace

import pytest

from services.runtime.errors import Aborted, InvalidArgument, PermissionDenied, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import MemoryBooks
from services.summarizer.adapters.memory_policies import MemoryPolicies
from services.summarizer.adapters.memory_schemas import MemorySchemaCache, MemorySchemas
from services.summarizer.domain.job_orders import Orders
from services.summarizer.domain.jobs import AskWork, FieldsWork, SummarizeWork, Work
from services.summarizer.domain.model_policy import EMPTY, ModelPolicy
from services.summarizer.domain.models import Models
from services.summarizer.domain.policy_book import BORNE_S, FRESH_S, PolicyBook, PolicyCache
from services.summarizer.domain.schema_book import SchemaBook
from services.summarizer.domain.values import Answer, Prompt, Summary
from tests.unit.summarizer.flow.parts import (
    ALICE,
    DOCUMENT,
    MODEL,
    STRANGER,
    Clock,
    Flow,
    ScriptedProvider,
    options,
    page,
)

SECOND, THIRD = "second/writer", "third/writer"
PRICES = dict.fromkeys((MODEL, SECOND, THIRD), (1000000, 2000000))


class Second(ScriptedProvider):
    name = "second"


class Third(ScriptedProvider):
    name = "third"


class Fixed:
    """The policy of acme; nobody else has one."""

    def __init__(self, **policy: object) -> None:
        self.policy = replace(EMPTY, **policy)  # type: ignore[arg-type]  # as the test names them

    async def of(self, tenant: str) -> ModelPolicy:
        return self.policy if tenant == "acme" else EMPTY


async def refuse(_: Prompt) -> Answer:
    raise Unavailable("PROVIDER_UNAVAILABLE", "It is away.", metadata={"sent": "no"})


def flow_with(**policy: object) -> Flow:
    flow = Flow(
        books=MemoryBooks(PRICES),
        others={"second": Second(), "third": Third()},
        fallbacks=(SECOND, THIRD),
        policies=Fixed(**policy),
    )
    for caller in (ALICE, STRANGER):
        flow.pages.put(caller.tenant, DOCUMENT, page(1, "The cat sat here.\nIt was warm."))
    return flow


async def ask(flow: Flow, model: str = "", *fallbacks: str, caller: object = ALICE) -> Summary:
    with act_as(caller):  # type: ignore[arg-type]  # ALICE or STRANGER
        return await flow.summarize()(caller, DOCUMENT, options(model=model), fallbacks=fallbacks)  # type: ignore[arg-type]


def asked(flow: Flow) -> list[str]:
    return [name for name, one in {"scripted": flow.provider, **flow.others}.items() if one.prompts]


class TestPrecedence:
    async def test_the_request_before_the_tenant_before_the_deployment(self) -> None:
        flow = flow_with(default_model=SECOND, fallback_models=(THIRD,))
        models = flow.models()

        async def lineup(tenant: str, *named: str) -> list[str]:
            return [model.name for model in await models.lineup(tenant, named[0], named[1:])]

        assert await lineup("globex", "") == [MODEL, SECOND, THIRD]
        assert await lineup("acme", "") == [SECOND, THIRD]
        assert await lineup("acme", MODEL) == [MODEL, THIRD]
        assert await lineup("acme", MODEL, SECOND) == [MODEL, SECOND]
        assert await lineup("acme", "", MODEL) == [SECOND, MODEL]
        assert (await models.chosen("acme", "")).name == SECOND
        assert (await ask(flow)).model == SECOND

    async def test_the_default_as_its_own_fallback_means_no_other(self) -> None:
        flow = flow_with(default_model=SECOND, fallback_models=(SECOND,))
        flow.others["second"].behaviour = refuse
        with pytest.raises(Unavailable, match="It is away"):
            await ask(flow)
        assert asked(flow) == ["second"]

    async def test_a_fallback_that_is_not_served_any_more_is_passed_over(self) -> None:
        flow = flow_with(fallback_models=("gone/model", THIRD))
        assert [model.name for model in await flow.models().lineup("acme", "", [])] == [MODEL, THIRD]


class TestAllowed:
    @pytest.mark.parametrize(
        ("named", "field"), [((MODEL,), "options.model"), ((SECOND, THIRD), "options.fallback_models")]
    )
    async def test_a_request_for_another_model_is_refused_before_anything_is_read_or_paid(
        self, named: tuple[str, ...], field: str
    ) -> None:
        flow = flow_with(allowed_models=("second/*",))
        with pytest.raises(PermissionDenied) as refused:
            await ask(flow, *named)
        assert (refused.value.reason, refused.value.fields[0].field) == ("MODEL_NOT_ALLOWED", field)
        assert "second/*" in refused.value.message
        assert not asked(flow)

    async def test_so_is_the_deployments_default_and_a_summary_that_is_cached(self) -> None:
        flow = flow_with()
        assert (await ask(flow)).model == MODEL
        flow.policies = Fixed(allowed_models=(SECOND,))
        with pytest.raises(PermissionDenied, match="MODEL_NOT_ALLOWED"):
            await ask(flow)

    async def test_the_deployments_fallbacks_answer_where_they_are_allowed_alone(self) -> None:
        flow = flow_with(allowed_models=(MODEL, "third/*"))
        flow.provider.behaviour = refuse
        summary = await ask(flow)
        assert (summary.model, summary.degraded_from) == (THIRD, MODEL)
        assert asked(flow) == ["scripted", "third"]

    async def test_it_binds_its_own_tenant_alone(self) -> None:
        flow = flow_with(allowed_models=(SECOND,))
        assert (await ask(flow, MODEL, caller=STRANGER)).model == MODEL

    @pytest.mark.parametrize(
        ("entry", "name", "allowed"),
        [
            ("openrouter/*", "openrouter/openai/gpt-4.1-mini", True),
            ("openai/*", "openrouter/openai/gpt-4.1-mini", False),
            ("openai/*", "openai-eu/gpt-4.1-mini", False),
            ("openrouter/openai/*", "openrouter/openai/gpt-4.1-mini", False),
            ("openai/gpt-4.1", "openai/gpt-4.1-mini", False),
        ],
    )
    def test_what_an_entry_covers(self, entry: str, name: str, *, allowed: bool) -> None:
        assert ModelPolicy(allowed_models=(entry,)).allows(name) is allowed

    @pytest.mark.parametrize(
        "work",
        [
            SummarizeWork(options(model=MODEL), ()),
            AskWork("What is it?", 0, "", MODEL, ()),
            FieldsWork("{}", "", MODEL, ()),
        ],
        ids=["summarize", "ask", "fields"],
    )
    async def test_a_job_is_refused_as_it_is_handed_in(self, work: Work) -> None:
        models = flow_with(allowed_models=(SECOND,)).models()
        book = SchemaBook(store=MemorySchemas(), cache=MemorySchemaCache(), counted=lambda _: None)
        with pytest.raises(PermissionDenied, match="MODEL_NOT_ALLOWED"):
            await Orders(models=models, schemas=book).settled("acme", work)


def book_of(store: MemoryPolicies, clock: Clock) -> tuple[PolicyBook, PolicyCache]:
    cache = PolicyCache(store, monotonic_s=clock)
    models = Models({"scripted": ScriptedProvider(), "second": Second()}, default=MODEL)
    return PolicyBook(store=store, cache=cache, models=models, monotonic_s=clock), cache


class TestBook:
    async def test_only_what_is_named_changes(self) -> None:
        book, _ = book_of(MemoryPolicies(), Clock())
        await book.update("acme", {"default_model": SECOND, "allowed_models": ["second/*", MODEL]})
        policy = await book.update("acme", {"fallback_models": [MODEL]})
        assert (policy.default_model, policy.fallback_models) == (SECOND, (MODEL,))
        assert policy.allowed_models == ("second/*", MODEL)
        assert await book.get("acme") == policy
        assert await book.get("globex") == EMPTY
        assert (await book.update("acme", {"allowed_models": [], "default_model": ""})).allowed_models == ()

    @pytest.mark.parametrize(
        ("changes", "reason", "field"),
        [
            ({"default_model": "nobody/x"}, "MODEL_UNKNOWN", "default_model"),
            ({"fallback_models": ["scripted/reader"]}, "MODEL_UNKNOWN", "fallback_models"),
            ({"allowed_models": ["scriptd/*"]}, "MODEL_UNKNOWN", "allowed_models"),
            ({"allowed_models": ["scripted/reader"]}, "MODEL_UNKNOWN", "allowed_models"),
            ({"allowed_models": ["second/*"], "default_model": MODEL}, "MODEL_NOT_ALLOWED", "default_model"),
            ({"allowed_models": ["second/*"], "fallback_models": [MODEL]}, "MODEL_NOT_ALLOWED", "fallback_models"),
        ],
    )
    async def test_what_cannot_hold_is_refused(self, changes: dict[str, str], reason: str, field: str) -> None:
        book, _ = book_of(MemoryPolicies(), Clock())
        with pytest.raises(InvalidArgument) as refused:
            await book.update("acme", changes)
        assert (refused.value.reason, refused.value.fields[0].field) == (reason, f"model_policy.{field}")
        assert await book.get("acme") == EMPTY

    async def test_a_default_that_would_not_be_allowed_any_more_is_in_the_way(self) -> None:
        book, _ = book_of(MemoryPolicies(), Clock())
        await book.update("acme", {"default_model": MODEL})
        with pytest.raises(InvalidArgument, match="MODEL_NOT_ALLOWED"):
            await book.update("acme", {"allowed_models": ["second/*"]})

    async def test_of_two_who_change_it_at_once_neither_is_lost(self) -> None:
        book, _ = book_of(MemoryPolicies(), Clock())
        changes: list[dict[str, list[str]]] = [{"allowed_models": [MODEL]}, {"fallback_models": [MODEL]}]
        await asyncio.gather(*(book.update("acme", change) for change in changes))
        policy = await book.get("acme")
        assert (policy.allowed_models, policy.fallback_models, policy.revision) == ((MODEL,), (MODEL,), 2)

    async def test_who_never_gets_through_is_told(self) -> None:
        class Busy(MemoryPolicies):
            async def replace(self, tenant: str, policy: ModelPolicy, *, revision: int) -> ModelPolicy | None:
                return None

        book, _ = book_of(Busy(), Clock())
        with pytest.raises(Aborted, match="POLICY_CHANGED"):
            await book.update("acme", {"default_model": MODEL})


class Away(MemoryPolicies):
    """A store that can be taken away, and whose answers can be kept back."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def find(self, tenant: str) -> ModelPolicy:
        if self.away:
            raise Unavailable("DATABASE_UNAVAILABLE", "It is away.")
        found = await super().find(tenant)
        await self.gate.wait()
        return found


class TestCache:
    async def test_a_change_is_seen_at_once_here_and_soon_elsewhere(self) -> None:
        store, clock = Away(), Clock()
        book, here = book_of(store, clock)
        _, elsewhere = book_of(store, clock)
        assert await here.of("acme") == await elsewhere.of("acme") == EMPTY
        changed = await book.update("acme", {"allowed_models": [MODEL]})
        assert await here.of("acme") == changed
        assert await elsewhere.of("acme") == EMPTY
        clock.now_s += FRESH_S
        assert await elsewhere.of("acme") == changed

    async def test_many_who_ask_at_once_ask_the_store_once(self) -> None:
        store = Away()
        _, cache = book_of(store, Clock())
        await asyncio.gather(*(cache.of("acme") for _ in range(50)))
        assert store.reads == 1

    async def test_a_store_that_is_away_is_borne_for_so_long_and_no_longer(self) -> None:
        store, clock = Away(), Clock()
        book, cache = book_of(store, clock)
        policy = await book.update("acme", {"allowed_models": [MODEL]})
        store.away = True
        clock.now_s += BORNE_S - 1
        assert await cache.of("acme") == policy
        clock.now_s += 1
        with pytest.raises(Unavailable):
            await cache.of("acme")
        with pytest.raises(Unavailable):
            await cache.of("globex")

    async def test_what_was_read_before_a_change_does_not_hide_it(self) -> None:
        store = Away()
        book, cache = book_of(store, Clock())
        store.gate.clear()
        early = asyncio.create_task(cache.of("acme"))
        while not store.reads:
            await asyncio.sleep(0)
        store.gate.set()
        changed = await book.update("acme", {"allowed_models": [MODEL]})
        await early
        assert await cache.of("acme") == changed

    async def test_who_gives_up_leaves_the_question_to_the_others(self) -> None:
        store = Away()
        _, cache = book_of(store, Clock())
        store.gate.clear()
        first, second = (asyncio.create_task(cache.of("acme")) for _ in range(2))
        while not store.reads:
            await asyncio.sleep(0)
        first.cancel()
        store.gate.set()
        assert await second == EMPTY
        await cache.close()
