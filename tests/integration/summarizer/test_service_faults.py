"""The service while something else is broken: a clear error, no money lost, and the next good request works."""

import asyncio

import pytest

from services.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    PagemeshError,
    ResourceExhausted,
    Unavailable,
)
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import (
    DOCUMENT,
    Client,
    World,
    until,
    until_so,
)
from tests.integration.summarizer.peers import Script

pytestmark = pytest.mark.usefixtures("document")
RETRY_AFTER_S = 40
REACHED_S = 3
"""A deadline that is long enough for the call to come to where it hangs, also on a busy machine."""


async def states(world: World) -> list[str]:
    return sorted((await world.ledger.holds()).values())


async def settled_tokens(world: World) -> tuple[int, int]:
    events = await world.ledger.events()
    return sum(event[1] for event in events), sum(event[2] for event in events)


async def works_again(client: Client) -> None:
    """The same request is answered, as soon as the breakers let it through."""

    async def answered() -> bool:
        try:
            await client.summarize(timeout_s=10)
        except (Unavailable, DeadlineExceeded):
            return False
        return True

    # Not too often: each failure is one for the breakers too.
    await until_so(answered, poll_s=0.5)


class TestProvider:
    @pytest.mark.parametrize(
        ("behaviour", "error"),
        [
            (f"429:{RETRY_AFTER_S}", ResourceExhausted),
            ("401", FailedPrecondition),
            ("422", InvalidArgument),
            ("503:99", Unavailable),
        ],
    )
    async def test_a_refusal_costs_nothing(
        self, world: World, client: Client, mistral: MistralServer, behaviour: str, error: type[PagemeshError]
    ) -> None:
        mistral.script(behaviour)
        with pytest.raises(error) as caught:
            await client.summarize()
        assert caught.value.metadata["provider"] == "mistral"
        assert caught.value.retry_after_s == (float(behaviour[4:]) if ":" in behaviour else None)
        assert "SECRET" not in caught.value.message
        assert await states(world) == ["RELEASED"]
        if behaviour.startswith("429"):  # nobody calls before the time that the provider named
            with pytest.raises(error):
                await client.summarize()
            assert mistral.calls == 1
            return
        await works_again(client)
        assert await settled_tokens(world) == (mistral.books.input_tokens, mistral.books.output_tokens)

    async def test_a_short_wait_is_waited_for(self, client: Client, world: World, mistral: MistralServer) -> None:
        mistral.script("429:0", "503:0", "ok")
        summary = await client.summarize()
        assert mistral.calls == 3
        assert summary.consumption.provider_calls == 1
        assert await states(world) == ["SETTLED"]

    @pytest.mark.parametrize("behaviour", ["cut", "not_http", "500", "502"])
    async def test_an_answer_that_breaks_off_may_have_to_be_paid(
        self, client: Client, world: World, mistral: MistralServer, behaviour: str
    ) -> None:
        mistral.script(behaviour)
        with pytest.raises(Unavailable):
            await client.summarize()
        assert await states(world) == ["HELD"]
        await works_again(client)
        assert await states(world) == ["HELD", "SETTLED"]

    @pytest.mark.parametrize("behaviour", ["schema", "length", "empty"])
    async def test_an_answer_that_cannot_be_used_is_paid_as_told(
        self, client: Client, world: World, mistral: MistralServer, behaviour: str
    ) -> None:
        mistral.script(behaviour)
        with pytest.raises(Unavailable) as caught:
            await client.summarize()
        assert caught.value.reason == "PROVIDER_INVALID_ANSWER"
        assert await states(world) == ["SETTLED"]
        assert await settled_tokens(world) == (mistral.books.input_tokens, mistral.books.output_tokens)
        await works_again(client)

    @pytest.mark.parametrize("behaviour", ["hang", "hang_midway"])
    async def test_a_deadline_cancels_the_call_and_its_money_stays_held(
        self, client: Client, world: World, mistral: MistralServer, behaviour: str
    ) -> None:
        mistral.script(behaviour)
        with pytest.raises(DeadlineExceeded):
            await client.summarize(timeout_s=REACHED_S)
        await until(lambda: mistral.books.cancelled == 1, timeout_s=1)
        assert await states(world) == ["HELD"]
        await works_again(client)

    async def test_a_caller_who_hangs_up_cancels_the_call(
        self, client: Client, world: World, mistral: MistralServer
    ) -> None:
        mistral.script("hang")
        call = client.stream()
        reading = asyncio.create_task(_drain(call))
        await until(lambda: mistral.calls == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: mistral.books.cancelled == 1, timeout_s=1)
        assert await states(world) == ["HELD"]
        await works_again(client)

    async def test_hanging_up_on_the_offline_model_leaves_nothing_held(
        self, client: Client, world: World, document: Script
    ) -> None:
        document.pages = tuple(
            "".join(f"Sentence {n} tells of the tree {n % 97} and of bird {n % 89}. " for n in range(page, page + 40))
            for page in range(0, 4_000, 40)
        )

        async def held() -> bool:
            return "HELD" in await states(world)

        for _ in range(3):
            call = client.stream(model="offline/lexrank")
            reading = asyncio.create_task(_drain(call))
            await until_so(held, poll_s=0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

            async def nothing_held() -> bool:
                return not await held()

            await until_so(nothing_held)
        assert "RELEASED" in await states(world)

    async def test_one_who_hangs_up_does_not_disturb_the_others(self, client: Client, mistral: MistralServer) -> None:
        mistral.script(f"slow:{REACHED_S + 1}")
        first = asyncio.create_task(client.summarize(timeout_s=REACHED_S))
        others = [asyncio.create_task(client.summarize()) for _ in range(3)]
        with pytest.raises(DeadlineExceeded):
            await first
        assert len({summary.text for summary in await asyncio.gather(*others)}) == 1
        assert mistral.calls == 1
        assert mistral.books.cancelled == 0


async def _drain(call: object) -> None:
    async for _ in call:  # type: ignore[attr-defined]  # the stub's calls have no types
        pass


class TestLedger:
    async def test_without_it_nothing_is_called(self, client: Client, world: World, mistral: MistralServer) -> None:
        world.wires["ledger"].cut()
        with pytest.raises(Unavailable):
            await client.summarize()
        assert mistral.calls == 0
        world.wires["ledger"].mend()
        await works_again(client)
        assert mistral.calls == 1

    async def test_one_that_hangs_is_not_waited_for_long(
        self, client: Client, world: World, mistral: MistralServer
    ) -> None:
        world.wires["ledger"].freeze(requests=False)
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await client.summarize(timeout_s=20)
        assert mistral.calls == 0
        world.wires["ledger"].mend()
        await works_again(client)
        # The ledger had made the hold; it is free again, for its call was never sent.
        assert await states(world) == ["RELEASED", "SETTLED"]

    async def test_an_answer_is_given_although_it_cannot_be_settled_yet(
        self, client: Client, world: World, mistral: MistralServer
    ) -> None:
        mistral.script("slow:1")
        asking = asyncio.create_task(client.summarize())
        await until(lambda: mistral.calls == 1)
        world.wires["ledger"].freeze()
        summary = await asking
        assert not summary.consumption.settled
        assert summary.consumption.cost.micros > 0
        assert await states(world) == ["HELD"]
        world.wires["ledger"].mend()

        async def settled() -> bool:
            return await states(world) == ["SETTLED"]

        await until_so(settled, timeout_s=60)
        assert await settled_tokens(world) == (mistral.books.input_tokens, mistral.books.output_tokens)


class TestCache:
    @pytest.mark.parametrize("fault", ["cut", "freeze"])
    async def test_without_it_everything_works(
        self, client: Client, world: World, mistral: MistralServer, fault: str
    ) -> None:
        first = await client.summarize()
        getattr(world.wires["valkey"], fault)()
        second = await client.summarize()
        assert not second.cached
        assert (second.text, second.consumption.cost.micros) == (first.text, 0)
        assert mistral.calls == 1
        world.wires["valkey"].mend()

        async def cached_again() -> bool:
            return (await client.summarize()).cached

        await until_so(cached_again)


class TestExtractor:
    async def test_without_it_nothing_is_paid(self, client: Client, world: World, mistral: MistralServer) -> None:
        await client.summarize()
        world.wires["extractor"].cut()
        # What was seen a moment ago may be answered out of the cache for a second more.
        async with asyncio.timeout(60):
            with pytest.raises(Unavailable):
                while (await client.summarize()).cached:
                    pass
        world.wires["extractor"].mend()
        await works_again(client)
        assert mistral.calls == 1

    async def test_pages_that_break_off_cost_nothing(self, client: Client, world: World, document: Script) -> None:
        document.cut_after = 1
        with pytest.raises(Unavailable) as caught:
            await client.summarize()
        assert caught.value.reason == "EXTRACTION_CUT"
        assert await states(world) == []
        document.cut_after = None
        await works_again(client)

    async def test_a_caller_who_hangs_up_stops_the_reading(
        self, client: Client, world: World, document: Script
    ) -> None:
        document.hang_after = 1
        call = client.stream()
        reading = asyncio.create_task(_drain(call))
        await until(lambda: world.extractor.reading == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: world.extractor.cancelled == 1, timeout_s=1)
        assert await states(world) == []

    async def test_a_deadline_stops_the_reading(self, client: Client, world: World, document: Script) -> None:
        document.hang_after = 1
        with pytest.raises(DeadlineExceeded):
            await client.summarize(timeout_s=REACHED_S)
        await until(lambda: world.extractor.cancelled == 1, timeout_s=1)

    async def test_the_deadline_of_who_began_the_reading_is_not_that_of_who_joined(
        self, client: Client, world: World, document: Script
    ) -> None:
        document.hang_after = 1
        first = asyncio.create_task(client.summarize(timeout_s=REACHED_S))
        await until(lambda: world.extractor.reading == 1)
        others = [asyncio.create_task(client.summarize()) for _ in range(3)]
        with pytest.raises(DeadlineExceeded):
            await first
        document.go_on.set()
        assert len({summary.text for summary in await asyncio.gather(*others)}) == 1
        assert (world.extractor.reading, world.extractor.cancelled) == (1, 0)


class TestPostgres:
    async def test_without_it_nothing_is_paid(self, client: Client, world: World, mistral: MistralServer) -> None:
        world.wires["postgres"].cut()
        with pytest.raises(Unavailable) as caught:
            await client.summarize()
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        assert mistral.calls == 0
        assert await states(world) == []
        world.wires["postgres"].mend()
        await works_again(client)

    async def test_an_answer_that_cannot_be_kept_is_in_the_books_all_the_same(
        self, client: Client, world: World, mistral: MistralServer
    ) -> None:
        mistral.script("slow:1")
        asking = asyncio.create_task(client.summarize())
        await until(lambda: mistral.calls == 1)
        world.wires["postgres"].cut()
        with pytest.raises(Unavailable) as caught:
            await asking
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        assert await states(world) == ["SETTLED"]
        assert await settled_tokens(world) == (mistral.books.input_tokens, mistral.books.output_tokens)
        world.wires["postgres"].mend()
        await works_again(client)


async def test_too_short_a_deadline_reaches_nobody(client: Client, mistral: MistralServer) -> None:
    with pytest.raises(DeadlineExceeded):
        await client.summarize(DOCUMENT, timeout_s=0.001)
    assert mistral.calls == 0
