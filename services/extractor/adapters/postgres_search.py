"""The search index in Postgres: finding pages. What is looked for reaches it as parameters only."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from services.database.pool import Pool, translate
from services.extractor.adapters.index_text import asked, indexed
from services.extractor.adapters.languages import CONFIGURATIONS, configuration
from services.extractor.domain.search import Filters, FoundPage, Place
from services.extractor.domain.search_marks import Lexemes
from services.extractor.domain.search_query import Query
from services.runtime.errors import DeadlineExceeded

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

MAX_CANDIDATES = 10_000
"""So many matching pages are ranked at most, in the order in which they were indexed."""

# The tables are large and the index is always the way: read in sequence, another tenant's pages would be read too.
_BIND = """
    SELECT set_config('pagemesh.tenant', %s, true), set_config('statement_timeout', %s, true),
           set_config('enable_seqscan', 'off', true)
"""
# By each language of the tenant's pages: its lexeme, and every term by its rules. A prefix is also looked for as it is
# spelt, because stemming may take its end away, or all of it.
_TERMS = """
    WITH own AS (
        SELECT language, coalesce(rules.configuration, 'pg_catalog.simple') AS configuration
        FROM extractor.page_languages
        LEFT JOIN unnest(%(coded)s::text[], %(configurations)s::text[]) AS rules (language, configuration)
            USING (language)
        WHERE tenant = %(tenant)s AND (%(languages)s::text[] = '{}' OR language = ANY(%(languages)s))
        ORDER BY language LIMIT 200
    ), parsed AS (
        SELECT configuration, array_agg((CASE
            WHEN prefix THEN to_tsquery(configuration::regconfig, quoted) || to_tsquery('pg_catalog.simple', quoted)
            ELSE phraseto_tsquery(configuration::regconfig, term) END)::text ORDER BY number) AS terms
        FROM (SELECT DISTINCT configuration FROM own) AS configurations
        CROSS JOIN unnest(%(terms)s::text[], %(prefixes)s::bool[], %(quoted)s::text[])
            WITH ORDINALITY AS given (term, prefix, quoted, number)
        GROUP BY configuration
    )
    SELECT language, extractor.tenant_lexeme(%(tenant)s) || '/' || language, terms
    FROM own JOIN parsed USING (configuration)
"""
_BIND_QUERY = "SELECT set_config('pagemesh.query', %s::tsquery::text, true)"
# The condition on the words is in the policy of the table; see its migration. Pages are found before documents are
# looked at: led by documents, Postgres would read all pages of the tenant.
_FIND = """
    WITH matching AS MATERIALIZED (
        SELECT document_id, page, language, tsv FROM extractor.page_index
        WHERE tenant = %(tenant)s AND (%(documents)s::text[] = '{}' OR document_id = ANY(%(documents)s))
    ), candidates AS MATERIALIZED (
        SELECT document_id, page, language, tsv, display_name
        FROM matching JOIN extractor.documents ON documents.tenant = %(tenant)s AND documents.id = document_id
        WHERE documents.erase_time IS NULL
          AND (%(stored_after)s::timestamptz IS NULL OR documents.create_time >= %(stored_after)s)
          AND (%(stored_before)s::timestamptz IS NULL OR documents.create_time < %(stored_before)s)
        LIMIT %(candidates)s
    ), ranked AS (
        SELECT document_id, display_name, page, language, ts_rank_cd(tsv, asked.ranking::tsquery, 1) AS score
        FROM candidates JOIN unnest(%(languages)s::text[], %(rankings)s::text[]) AS asked (language, ranking)
        USING (language)
    )
    SELECT document_id, display_name, page, language, score FROM ranked
    WHERE %(score)s::real IS NULL OR score < %(score)s::real
       OR (score = %(score)s::real AND (document_id, page) > (%(document)s, %(page)s))
    ORDER BY score DESC, document_id, page
    LIMIT %(limit)s
"""
_LEXEMES = """
    SELECT tsvector_to_array(to_tsvector(configuration::regconfig, text))
    FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS given (configuration, text, number)
    ORDER BY number
"""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The query in the form of the index, for the languages that the tenant's pages are in."""

    query: str
    languages: Sequence[str]
    rankings: Sequence[str]


class PostgresSearch:
    """Implements the port `SearchIndex`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(
        self, tenant: str, query: Query, filters: Filters, *, after: Place | None, limit: int, timeout_s: float
    ) -> Sequence[FoundPage]:
        """See the port."""
        async with self._bound(tenant, timeout_s) as connection:
            composed = await self._compose(connection, tenant, query, filters.languages)
            if composed is None:
                return []
            await connection.execute(_BIND_QUERY, (composed.query,))
            values = _values(tenant, filters, after, limit, composed)
            # A plan that was made for other words may be a bad one.
            rows = await (await connection.execute(_FIND, values, prepare=False)).fetchall()
        return [FoundPage(*row) for row in rows]

    async def lexemes(self, words: Mapping[str, Sequence[str]], *, timeout_s: float) -> Mapping[str, Lexemes]:
        """See the port."""
        flat = [(language, word) for language, own in words.items() for word in own]
        # Thousands of words are too much for the event loop.
        values = await asyncio.to_thread(
            lambda: ([configuration(language) for language, _ in flat], [indexed(word) for _, word in flat])
        )
        async with self._bound("", timeout_s) as connection:
            rows = await (await connection.execute(_LEXEMES, values)).fetchall()
        found: dict[str, dict[str, frozenset[str]]] = {language: {} for language in words}
        for (language, word), (kept,) in zip(flat, rows, strict=True):
            found[language][word] = frozenset(kept)
        return found

    @contextlib.asynccontextmanager
    async def _bound(self, tenant: str, timeout_s: float) -> AsyncIterator[Connection]:
        with translate("search_pages"):
            try:
                async with self._pool.connection() as connection, connection.pipeline():
                    await connection.execute(_BIND, (tenant, str(max(int(timeout_s * 1000), 1))))
                    yield connection
            except psycopg.errors.QueryCanceled as exc:
                raise DeadlineExceeded(
                    "SEARCH_TIMEOUT", "The search takes too long. Add a word that few pages have, or a filter."
                ) from exc

    async def _compose(self, connection: Connection, tenant: str, query: Query, only: Sequence[str]) -> _Asked | None:
        """None where the tenant has no pages that could match."""
        terms = [*query.wanted, *query.excluded]
        spelt = [asked(term.text) for term in terms]
        values = {
            "tenant": tenant,
            "languages": list(only),
            "coded": list(CONFIGURATIONS),
            "configurations": [configuration(language) for language in CONFIGURATIONS],
            "terms": [text for text, _ in spelt],
            "prefixes": [term.prefix or prefix for term, (_, prefix) in zip(terms, spelt, strict=True)],
            "quoted": [_quoted(text) for text, _ in spelt],
        }
        scopes: dict[tuple[str, str], list[str]] = {}
        rankings: dict[str, str] = {}
        for language, lexeme, parsed in await (await connection.execute(_TERMS, values)).fetchall():
            form = _form(query, parsed)
            if form is not None:
                scopes.setdefault(form, []).append(f"'{lexeme}'")
                rankings[language] = form[0]
        if not scopes:
            return None
        parts = (f"(({' | '.join(lexemes)}) & {form[0]}{form[1]})" for form, lexemes in scopes.items())
        return _Asked(" | ".join(parts), list(rankings), list(rankings.values()))


def _form(query: Query, parsed: Sequence[str]) -> tuple[str, str] | None:
    """What a page must have and what it must not, out of terms as Postgres wrote them. Terms of which the
    language's rules leave nothing ("the") are left out; None where nothing is left to look for."""
    number = 0
    groups = []
    for group in query.groups:
        texts = [parsed[number + k] for k in range(len(group))]
        number += len(group)
        if any(texts):
            groups.append(f"({' | '.join(f'({text})' for text in texts if text)})")
    if not groups:
        return None
    texts = [parsed[number + k] for k in range(len(query.excluded))]
    return " & ".join(groups), "".join(f" & !({text})" for text in texts if text)


def _quoted(text: str) -> str:
    """One operand of to_tsquery, any word that begins so."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}':*"


def _values(tenant: str, filters: Filters, after: Place | None, limit: int, composed: _Asked) -> Mapping[str, Any]:
    return {
        "tenant": tenant,
        "documents": list(filters.documents),
        "stored_after": filters.stored_after,
        "stored_before": filters.stored_before,
        "candidates": MAX_CANDIDATES,
        "languages": composed.languages,
        "rankings": composed.rankings,
        "score": after.score if after else None,
        "document": after.document_id if after else "",
        "page": after.page if after else 0,
        "limit": limit,
    }
