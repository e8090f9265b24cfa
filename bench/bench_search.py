"""What a search costs over 100,000 pages of one tenant beside 400,000 of another, against plain SQL over the 100,000.

The plain query knows no tenants, languages, documents or limits: one table of one tenant's pages, one GIN index, one
statement over a connection that is open already. Both answer the ten best pages; they take turns. Pages have 200 words
of 30,000, as unevenly as words are. `python -m bench.bench_search 20000 80000` takes fewer pages. Also told: what
indexing a page of 1.4 KB costs, and what of it is the text's preparation in Python.
"""

import asyncio
import hashlib
import random
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import accumulate
from pathlib import Path

import psycopg

from bench.own_postgres import own_postgres
from bench.report import alternate_p50_us, report
from services.database.pool import Pool, open_pool
from services.extractor.adapters import postgres_index
from services.extractor.adapters.postgres_index import IndexablePage, index_pages
from services.extractor.adapters.postgres_search import PostgresSearch
from services.extractor.domain.search import Filters
from services.extractor.domain.search_query import parse_query

ROUNDS = 100
# Three rounds to the server instead of one: the query becomes lexemes, it is asked, and the transaction ends.
GOAL = 4.0
PAGES_OF_A_DOCUMENT = 200
BATCH = 100
_ROOT = Path(__file__).parent.parent
_RANDOM = random.Random(7)
_WORDS = ["".join(_RANDOM.choices("abcdefghijklmnoprstuvwy", k=_RANDOM.randint(3, 9))) for _ in range(30_000)]
_WEIGHTS = list(accumulate(1 / (rank + 1) for rank in range(len(_WORDS))))
_PLAIN = """
    SELECT document_id, page, ts_rank_cd(tsv, query, 1) AS score
    FROM extractor.plain, to_tsquery('english', %s) AS query
    WHERE tsv @@ query ORDER BY score DESC LIMIT 11
"""


def page_text() -> str:
    return "the and of this which was " + " ".join(_RANDOM.choices(_WORDS, cum_weights=_WEIGHTS, k=195))


async def fill(pool: Pool, tenant: str, pages: int) -> tuple[float, float]:
    """Indexes pages; answers milliseconds a page, and those of them that went into preparing the text."""
    took = prepared = 0.0
    for document in range(0, pages, PAGES_OF_A_DOCUMENT):
        sha256 = hashlib.sha256(f"{tenant}{document}".encode()).hexdigest()
        async with pool.connection() as connection:
            await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
            await connection.execute(
                "INSERT INTO extractor.documents (tenant, id, sha256, display_name, media_type, size_bytes,"
                " create_time, retention, expire_time) VALUES (%s, left(%s, 32), %s, 'a.pdf', 'application/pdf', 9,"
                " now(), 'KEPT', now() + interval '1 year')",
                (tenant, sha256, sha256),
            )
        for first in range(1, PAGES_OF_A_DOCUMENT, BATCH):
            batch = [IndexablePage(tenant, sha256[:32], first + n, page_text()) for n in range(BATCH)]
            begun = time.perf_counter()
            async with pool.connection() as connection:
                await index_pages(connection, batch)
            took += time.perf_counter() - begun
            begun = time.perf_counter()
            postgres_index._prepare(batch)
            prepared += time.perf_counter() - begun
    return took / pages * 1000, prepared / pages * 1000


async def measure(dsn: str, own: int, others: int) -> None:
    pool = await open_pool(dsn, name="bench")
    try:
        per_page, preparing = await fill(pool, "acme", own)
        await fill(pool, "other", others)
        plain = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        async with plain:
            await plain.execute("VACUUM ANALYZE extractor.page_index")
            await plain.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
            await plain.execute(
                "CREATE TABLE extractor.plain AS SELECT document_id, page, tsv FROM extractor.page_index"
            )
            await plain.execute("CREATE INDEX ON extractor.plain USING gin (tsv)")
            await plain.execute("ANALYZE extractor.plain")
            search = PostgresSearch(pool)
            detail: dict[str, object] = {"own_pages": own, "other_pages": others}
            ratios = []
            for name, query, tsquery in queries():
                mine, theirs = await alternate_p50_us(ROUNDS, finding(search, query), asking(plain, tsquery))
                ratios.append(mine / theirs)
                detail[name] = {"search_p50_us": round(mine), "plain_p50_us": round(theirs)}
            detail["index_ms_a_page"] = {"all": round(per_page, 3), "preparing": round(preparing, 3)}
            report("search", ratio=sorted(ratios)[len(ratios) // 2], goal=GOAL, better="lower", detail=detail)
    finally:
        await pool.close()


def queries() -> list[tuple[str, str, str]]:
    """By name: as people write it, and as Postgres does."""
    common, usual, rare = _WORDS[20], _WORDS[300], _WORDS[5000]
    return [
        ("rare word", rare, rare),
        ("usual word", usual, usual),
        ("two words", f"{usual} {common}", f"{usual} & {common}"),
        ("phrase", f'"{_WORDS[30]} {_WORDS[20]}"', f"{_WORDS[30]} <-> {_WORDS[20]}"),
        ("prefix", f"{rare[:4]}*", f"{rare[:4]}:*"),
        ("on every fourth page", _WORDS[8], _WORDS[8]),
    ]


def finding(search: PostgresSearch, query: str) -> Callable[[], Awaitable[object]]:
    return lambda: search.find("acme", parse_query(query), Filters(), after=None, limit=11, timeout_s=10)


def asking(connection: "psycopg.AsyncConnection[tuple[object, ...]]", query: str) -> Callable[[], Awaitable[object]]:
    async def ask() -> object:
        return await (await connection.execute(_PLAIN, (query,))).fetchall()

    return ask


def main() -> None:
    own, others = (int(given) for given in sys.argv[1:3]) if len(sys.argv) > 2 else (100_000, 400_000)
    with own_postgres("extractor") as dsn:
        asyncio.run(measure(dsn, own, others))


if __name__ == "__main__":
    main()
