"""The search index in Postgres: writing it."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import psycopg

from services.extractor.adapters.index_text import indexed
from services.extractor.adapters.languages import LanguageGuesser, configuration

_SURE_CHARACTERS = 200
"""A shorter page is taken to be in the language of its document."""
_SETTLED_PAGES = 4
_LEFT_OUT_PAGES = 7

_BIND = "SELECT set_config('pagemesh.tenant', %s, true)"
_LANGUAGES_OF = """
    SELECT d.id, known.language
    FROM unnest(%(documents)s::text[]) AS d (id)
    CROSS JOIN LATERAL (
        SELECT language FROM extractor.page_index
        WHERE tenant = %(tenant)s AND document_id = d.id AND language <> ''
        ORDER BY page LIMIT 1
    ) AS known
"""
_NOTE_LANGUAGES = """
    INSERT INTO extractor.page_languages (tenant, language)
    SELECT %(tenant)s, unnest(%(languages)s::text[]) ON CONFLICT DO NOTHING
"""
# Documents are locked first and in order, so that nobody erases one meanwhile and no two writers wait for each other.
# A page without text does not take the place of one whose text was recognised. Lists are sent in binary: to quote all
# letters of a second's pages took a tenth of it.
_WRITE = """
    WITH alive AS MATERIALIZED (
        SELECT id FROM extractor.documents
        WHERE tenant = %(tenant)s AND id = ANY(%(documents)b::text[]) AND erase_time IS NULL
        ORDER BY id FOR NO KEY UPDATE
    ), written AS (
        INSERT INTO extractor.page_index (tenant, document_id, page, language, tsv)
        SELECT %(tenant)s, given.document_id, given.page, given.language,
               array_to_tsvector(ARRAY[scope.lexeme, scope.lexeme || '/' || given.language])
               || to_tsvector(given.configuration::regconfig, given.text)
        FROM unnest(%(documents)b::text[], %(pages)b::int[], %(languages)b::text[], %(configurations)b::text[],
                    %(texts)b::text[]) AS given (document_id, page, language, configuration, text)
        JOIN alive ON alive.id = given.document_id
        CROSS JOIN (SELECT extractor.tenant_lexeme(%(tenant)s) AS lexeme) AS scope
        ON CONFLICT (tenant, document_id, page) DO UPDATE SET language = excluded.language, tsv = excluded.tsv
        WHERE length(excluded.tsv) > 2 OR length(page_index.tsv) <= 2
        RETURNING new.document_id AS id, old.page IS NULL AS added
    )
    UPDATE extractor.documents SET searchable_pages = searchable_pages + counted.added
    FROM (SELECT id, count(*) AS added FROM written WHERE added GROUP BY id) AS counted
    WHERE documents.tenant = %(tenant)s AND documents.id = counted.id
"""


@dataclass(frozen=True, slots=True)
class IndexablePage:
    """The text of one page."""

    tenant: str
    document_id: str
    number: int
    text: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    page: IndexablePage
    text: str
    language: str
    sure: bool


_guesser = LanguageGuesser()


async def index_pages(connection: psycopg.AsyncConnection[tuple[Any, ...]], pages: Sequence[IndexablePage]) -> None:
    """Writes pages to the index, in the transaction that stores them. A page that is there already is replaced; pages
    of documents that are gone or being erased are left out. The transaction is bound to the tenant of the last page
    then, in the order of tenants' ids."""
    if not pages:
        return
    prepared = await asyncio.to_thread(_prepare, pages)
    for tenant, own in groupby(prepared, key=lambda each: each.page.tenant):
        await connection.execute(_BIND, (tenant,))
        await _write(connection, tenant, list(own))


async def _write(
    connection: psycopg.AsyncConnection[tuple[Any, ...]], tenant: str, prepared: Sequence[_Prepared]
) -> None:
    languages = await _languages(connection, tenant, prepared)
    chosen = [each.language if each.sure else languages.get(each.page.document_id, each.language) for each in prepared]
    await connection.execute(_NOTE_LANGUAGES, {"tenant": tenant, "languages": sorted(set(chosen))})
    await connection.execute(
        _WRITE,
        {
            "tenant": tenant,
            "documents": [each.page.document_id for each in prepared],
            "pages": [each.page.number for each in prepared],
            "languages": chosen,
            "configurations": [configuration(language) for language in chosen],
            "texts": [each.text for each in prepared],
        },
    )


async def _languages(
    connection: psycopg.AsyncConnection[tuple[Any, ...]], tenant: str, prepared: Sequence[_Prepared]
) -> Mapping[str, str]:
    """Languages of the documents that have pages with little text: what most of their other pages are in."""
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in prepared:
        if each.sure:
            votes[each.page.document_id][each.language] += 1
    found = {document: counted.most_common(1)[0][0] for document, counted in votes.items()}
    unknown = {each.page.document_id for each in prepared} - found.keys()
    if unknown:
        values = {"tenant": tenant, "documents": sorted(unknown)}
        found.update(await (await connection.execute(_LANGUAGES_OF, values)).fetchall())
    return found


class _Streak:
    """Languages of a document's pages. Telling one costs more than all the rest of a page's preparation, so where
    several pages in a row are in the same, only some of those that follow are asked, until one is in another."""

    def __init__(self) -> None:
        self._language = ""
        self._length = 0
        self._left_out = 0

    def language(self, text: str) -> str:
        if self._length >= _SETTLED_PAGES and self._left_out < _LEFT_OUT_PAGES:
            self._left_out += 1
            return self._language
        language = _guesser.guess(text)
        if len(text) >= _SURE_CHARACTERS:
            self._length = self._length + 1 if language == self._language else 1
            self._language = language
            self._left_out = 0
        return language


def _prepare(pages: Sequence[IndexablePage]) -> Sequence[_Prepared]:
    """In the order of their keys, each once: the last one given is the newest. For threads."""
    newest = {(page.tenant, page.document_id, page.number): page for page in pages}
    streaks: defaultdict[tuple[str, str], _Streak] = defaultdict(_Streak)
    prepared = []
    for (tenant, document_id, _), page in sorted(newest.items(), key=lambda item: item[0]):
        language = streaks[tenant, document_id].language(page.text)
        sure = bool(language) and len(page.text) >= _SURE_CHARACTERS
        prepared.append(_Prepared(page, indexed(page.text), language, sure))
    return prepared
