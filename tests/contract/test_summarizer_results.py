"""Results and Outbox: in memory and on a real Postgres, and what only Postgres can promise."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import psycopg
import pytest

from services.database.pool import Pool, open_pool
from services.runtime.errors import Unavailable
from services.summarizer.adapters import encoding
from services.summarizer.adapters.memory import MemoryStore
from services.summarizer.adapters.postgres_results import PostgresOutbox, PostgresResults
from services.summarizer.domain.ports import Backlog, DueDelivery, Outbox, Results
from services.summarizer.domain.values import Answer, Caller, Claim, Delivery, Quote, TokenCount, UsageEvent

DOCUMENT, OTHER_DOCUMENT = "documents/" + "a" * 32, "documents/" + "b" * 32
KEYS = [bytes([number]) * 32 for number in range(5)]
ANSWER = Answer((Claim('A "claim" \x00\ud800.', (Quote("words", 3), Quote("more", 0))),), TokenCount(10, 2))
OTHER = Answer((), TokenCount(1, 1))


def delivery(number: int, *, tenant: str = "acme", release: bool = False, document: str = DOCUMENT) -> Delivery:
    hold_id = f"00000000-0000-4000-8000-{number:012d}"
    caller = Caller(tenant, "apiKeys/alice", "books", frozenset(), f"request-{number}")
    event = UsageEvent(
        event_id=hold_id,
        model="mistral/mistral-small-latest",
        tokens=TokenCount(10, 2),
        operation="summarize.map",
        document=document,
        request_id=caller.request_id,
        occurred_at_s=1_700_000_000.123456789,
        tags={"some": "tag"},
    )
    return Delivery(hold_id, caller, None if release else event)


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    pool = await open_pool(database("summarizer"), name="contract", max_size=5)
    yield pool
    await pool.close()


Store = tuple[Results, Outbox]


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Store:
    """Every delivery is due at once."""
    if request.param == "memory":
        memory = MemoryStore(_Monotonic(), grace_s=0)
        return memory, memory
    pool = request.getfixturevalue("pool")
    return PostgresResults(pool, grace_s=0), PostgresOutbox(pool, grace_s=0)


class _Monotonic:
    def __call__(self) -> float:
        return asyncio.get_running_loop().time()


def ids(taken: tuple[DueDelivery, ...]) -> list[str]:
    return [due.delivery.hold_id for due in taken]


class TestEveryStore:
    async def test_an_answer_and_its_delivery_are_kept_together(self, store: Store) -> None:
        results, outbox = store
        await results.commit(KEYS[0], ANSWER, delivery(1))
        found = await results.find("acme", KEYS)
        assert set(found) == {KEYS[0]}
        assert found[KEYS[0]].answer == ANSWER
        assert found[KEYS[0]].event_id == delivery(1).hold_id
        assert await outbox.take(10, 60) == (DueDelivery(delivery(1), 0),)

    async def test_nothing_is_asked_for_and_nothing_found(self, store: Store) -> None:
        assert await store[0].find("acme", []) == {}

    async def test_the_first_answer_stays_and_each_call_is_delivered(self, store: Store) -> None:
        results, outbox = store
        await results.commit(KEYS[0], ANSWER, delivery(1))
        await results.commit(KEYS[0], OTHER, delivery(2))
        assert (await results.find("acme", KEYS))[KEYS[0]].answer == ANSWER
        assert len(await outbox.take(10, 60)) == 2

    async def test_committing_twice_is_committing_once(self, store: Store) -> None:
        results, outbox = store
        await results.commit(KEYS[0], ANSWER, delivery(1))
        await results.commit(KEYS[0], ANSWER, delivery(1))
        assert len(await outbox.take(10, 60)) == 1

    async def test_another_tenant_finds_nothing(self, store: Store) -> None:
        results, _ = store
        await results.commit(KEYS[0], ANSWER, delivery(1))
        assert await results.find("globex", KEYS) == {}
        await results.commit(KEYS[0], OTHER, delivery(2, tenant="globex"))
        assert (await results.find("globex", KEYS))[KEYS[0]].answer == OTHER
        assert (await results.find("acme", KEYS))[KEYS[0]].answer == ANSWER

    async def test_a_purge_forgets_what_was_bought_for_one_document(self, store: Store) -> None:
        results, outbox = store
        await results.commit(KEYS[0], ANSWER, delivery(1))
        await results.commit(KEYS[1], ANSWER, delivery(2))
        await results.commit(KEYS[2], ANSWER, delivery(3, document=OTHER_DOCUMENT))
        await results.commit(KEYS[0], ANSWER, delivery(4, tenant="globex"))
        assert await results.purge("acme", DOCUMENT) == 2
        assert set(await results.find("acme", KEYS)) == {KEYS[2]}
        assert set(await results.find("globex", KEYS)) == {KEYS[0]}
        assert await results.purge("acme", DOCUMENT) == 0
        assert len(await outbox.take(10, 60)) == 4, "what was paid is told all the same"

    async def test_a_run_that_began_before_a_purge_keeps_nothing_and_owes_what_it_paid(self, store: Store) -> None:
        results, outbox = store
        before = await results.generation("acme", DOCUMENT)
        assert await results.purge("acme", DOCUMENT) == 0
        await results.commit(KEYS[0], ANSWER, delivery(1), generation=before)
        assert await results.find("acme", KEYS) == {}
        assert len(await outbox.take(10, 60)) == 1
        after = await results.generation("acme", DOCUMENT)
        assert await results.generation("globex", DOCUMENT) == before
        assert await results.generation("acme", OTHER_DOCUMENT) == before
        await results.commit(KEYS[0], ANSWER, delivery(2), generation=after)
        assert set(await results.find("acme", KEYS)) == {KEYS[0]}

    @pytest.mark.parametrize("purged", [DOCUMENT, OTHER_DOCUMENT])
    async def test_an_answer_made_of_several_goes_with_any_of_them(self, store: Store, purged: str) -> None:
        results, outbox = store
        both = ((DOCUMENT, 0), (OTHER_DOCUMENT, 0))
        await results.commit(KEYS[0], ANSWER, delivery(1, document=""), others=both)
        await results.commit(KEYS[1], ANSWER, delivery(2, document=""), others=both[:1])
        await results.commit(KEYS[0], ANSWER, delivery(3, tenant="globex", document=""), others=both)
        assert await results.purge("acme", "documents/" + "c" * 32) == 0
        assert await results.purge("acme", purged) == (2 if purged == DOCUMENT else 1)
        assert KEYS[0] not in await results.find("acme", KEYS)
        assert set(await results.find("globex", KEYS)) == {KEYS[0]}
        assert await results.purge("acme", purged) == 0
        assert len(await outbox.take(10, 60)) == 3

    async def test_nothing_is_kept_of_several_where_one_was_purged_meanwhile(self, store: Store) -> None:
        results, outbox = store
        await results.purge("acme", OTHER_DOCUMENT)
        stale = ((DOCUMENT, 0), (OTHER_DOCUMENT, 0))
        await results.commit(KEYS[0], ANSWER, delivery(1, document=""), others=stale)
        assert await results.find("acme", KEYS) == {}
        assert len(await outbox.take(10, 60)) == 1
        now = ((DOCUMENT, 0), (OTHER_DOCUMENT, await results.generation("acme", OTHER_DOCUMENT)))
        await results.commit(KEYS[0], ANSWER, delivery(2, document=""), others=now)
        await results.commit(KEYS[0], OTHER, delivery(3, document=""), others=now)
        assert (await results.find("acme", KEYS))[KEYS[0]].answer == ANSWER

    async def test_a_release_is_a_delivery_without_an_event(self, store: Store) -> None:
        _, outbox = store
        await outbox.add(delivery(1, release=True))
        (due,) = await outbox.take(10, 60)
        assert due.delivery == delivery(1, release=True)

    async def test_what_was_added_first_stays(self, store: Store) -> None:
        _, outbox = store
        await outbox.add(delivery(1))
        await outbox.add(replace(delivery(1), event=None))
        (due,) = await outbox.take(10, 60)
        assert due.delivery.event is not None

    async def test_oldest_first_and_no_more_than_asked_for(self, store: Store) -> None:
        _, outbox = store
        for number in range(5):
            await outbox.add(delivery(number))
        assert ids(await outbox.take(3, 60)) == [delivery(n).hold_id for n in range(3)]
        assert ids(await outbox.take(3, 60)) == [delivery(n).hold_id for n in (3, 4)]
        assert await outbox.take(3, 60) == ()

    async def test_a_lease_that_ran_out_gives_it_to_the_next(self, store: Store) -> None:
        _, outbox = store
        await outbox.add(delivery(1))
        await outbox.take(1, 0)
        assert await outbox.take(1, 60) == (DueDelivery(delivery(1), 1),)
        assert await outbox.take(1, 60) == ()

    async def test_what_is_postponed_is_not_due(self, store: Store) -> None:
        _, outbox = store
        await outbox.add(delivery(1))
        await outbox.take(1, 0)
        await outbox.postpone(delivery(1).hold_id, 60, "LEDGER_UNAVAILABLE")
        assert await outbox.take(1, 60) == ()
        await outbox.postpone(delivery(1).hold_id, 0, "LEDGER_UNAVAILABLE")
        assert len(await outbox.take(1, 60)) == 1

    async def test_what_is_parked_stays_and_is_never_due(self, store: Store) -> None:
        _, outbox = store
        for number in (1, 2):
            await outbox.add(delivery(number))
        await outbox.take(1, 0)
        await outbox.park(delivery(1).hold_id, "HOLD_NOT_FOUND")
        assert ids(await outbox.take(10, 60)) == [delivery(2).hold_id]
        backlog = await outbox.backlog()
        assert (backlog.depth, backlog.parked) == (1, 1)
        await outbox.done(delivery(2).hold_id)
        assert await outbox.backlog() == Backlog(depth=0, oldest_age_s=0, parked=1)
        await outbox.postpone(delivery(1).hold_id, 0, "an operator's will")
        assert ids(await outbox.take(10, 60)) == [delivery(1).hold_id]

    async def test_what_is_done_is_gone_and_may_be_done_twice(self, store: Store) -> None:
        _, outbox = store
        await outbox.add(delivery(1))
        for _ in range(2):
            await outbox.done(delivery(1).hold_id)
        assert await outbox.take(1, 60) == ()

    async def test_the_backlog_counts_what_is_leased_too(self, store: Store) -> None:
        _, outbox = store
        assert ((await outbox.backlog()).depth, (await outbox.backlog()).oldest_age_s) == (0, 0)
        for number in range(3):
            await outbox.add(delivery(number))
        await outbox.take(2, 60)
        backlog = await outbox.backlog()
        assert backlog.depth == 3
        assert backlog.oldest_age_s >= 0


async def test_half_a_commit_is_none(pool: Pool) -> None:
    results = PostgresResults(pool)
    broken = replace(delivery(1), hold_id="not a uuid")
    with pytest.raises(psycopg.DataError):
        await results.commit(KEYS[0], ANSWER, broken)
    assert await results.find("acme", KEYS) == {}


async def test_a_query_that_forgets_the_tenant_finds_nothing(pool: Pool) -> None:
    await PostgresResults(pool).commit(KEYS[0], ANSWER, delivery(1))
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT count(*) FROM summarizer.results")
        assert await cursor.fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(
                "INSERT INTO summarizer.results (tenant, content_key, answer, event_id, document) "
                "SELECT 'globex', '\\x00'::bytea || repeat('x', 31)::bytea, '', gen_random_uuid(), ''"
            )


async def test_documents_of_an_answer_are_their_tenants_own(pool: Pool) -> None:
    results = PostgresResults(pool)
    await results.commit(KEYS[0], ANSWER, delivery(1, document=""), others=((DOCUMENT, 0), (OTHER_DOCUMENT, 0)))
    async with pool.connection() as connection, connection.transaction():
        cursor = await connection.execute("SELECT count(*) FROM summarizer.result_documents")
        assert await cursor.fetchone() == (0,), "the query forgets the tenant"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(
                "INSERT INTO summarizer.result_documents VALUES ('globex', 'documents/x', repeat('x', 32)::bytea)"
            )
    await results.purge("acme", DOCUMENT)
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        cursor = await connection.execute("SELECT count(*) FROM summarizer.result_documents")
        assert await cursor.fetchone() == (0,), "they go with their answer"


async def test_a_purge_finds_its_answers_by_their_indexes(pool: Pool) -> None:
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        await connection.execute("SET LOCAL enable_seqscan = off")
        cursor = await connection.execute(
            "EXPLAIN SELECT content_key FROM summarizer.result_documents WHERE tenant = 'acme' AND document = 'x'"
        )
        plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert "Seq Scan" not in plan
    assert "result_documents_pkey" in plan


async def test_an_answer_that_another_version_wrote_is_not_found(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    results = PostgresResults(pool)
    await results.commit(KEYS[0], ANSWER, delivery(1))
    monkeypatch.setattr(encoding, "VERSION", encoding.VERSION + 1)
    assert await results.find("acme", KEYS) == {}
    await results.commit(KEYS[0], OTHER, delivery(2))
    assert (await results.find("acme", KEYS))[KEYS[0]].answer == OTHER
    monkeypatch.undo()
    assert (await results.find("acme", KEYS))[KEYS[0]].answer == ANSWER


async def test_the_tenant_of_one_query_is_not_the_next_ones(pool: Pool) -> None:
    results = PostgresResults(pool)
    await results.commit(KEYS[0], ANSWER, delivery(1))
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(results.find("acme", KEYS))
    for _ in range(5):
        assert await results.find("globex", KEYS) == {}


async def test_commits_and_purges_at_once_leave_nothing_of_before(pool: Pool) -> None:
    results = PostgresResults(pool)
    for round_number in range(10):
        generation = await results.generation("acme", DOCUMENT)
        commits = [
            results.commit(KEYS[n % 5], ANSWER, delivery(100 * round_number + n), generation=generation)
            for n in range(5)
        ]
        await asyncio.gather(*commits[:3], results.purge("acme", DOCUMENT), *commits[3:])
        assert await results.find("acme", KEYS) == {}


async def test_two_feeders_take_different_rows(pool: Pool) -> None:
    outbox = PostgresOutbox(pool, grace_s=0)
    for number in range(40):
        await outbox.add(delivery(number))
    taken = await asyncio.gather(*(outbox.take(10, 60) for _ in range(4)))
    given = [hold_id for batch in taken for hold_id in ids(batch)]
    assert len(given) == len(set(given))
    rest = await outbox.take(100, 60)
    assert len(given) + len(rest) == 40


async def test_the_one_who_commits_has_time_to_deliver_it(pool: Pool) -> None:
    await PostgresResults(pool).commit(KEYS[0], ANSWER, delivery(1))
    outbox = PostgresOutbox(pool)
    assert await outbox.take(10, 60) == ()
    assert (await outbox.backlog()).depth == 1


async def test_a_database_that_is_away_is_unavailable() -> None:
    pool = await open_pool("postgresql://nobody@127.0.0.1:1/none", name="away", max_size=1)
    pool.timeout = 0.2
    results, outbox = PostgresResults(pool), PostgresOutbox(pool)
    for call in (
        results.find("acme", KEYS),
        results.commit(KEYS[0], ANSWER, delivery(1)),
        outbox.add(delivery(1)),
        outbox.take(1, 1),
        outbox.done(delivery(1).hold_id),
        outbox.backlog(),
    ):
        with pytest.raises(Unavailable) as caught:
            await call
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
    await pool.close()
