"""The search index in a real Postgres: what is found, what is not, and by which way."""

import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.database.pool import Pool, open_pool
from services.extractor.adapters import postgres_search
from services.extractor.adapters.languages import CONFIGURATIONS, configuration
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.adapters.postgres_index import IndexablePage, index_pages
from services.extractor.adapters.postgres_search import PostgresSearch
from services.extractor.domain.documents import Document
from services.extractor.domain.media import MediaType
from services.extractor.domain.search import Filters, FoundPage, Place
from services.extractor.domain.search_query import parse_query
from services.runtime.errors import DeadlineExceeded, InvalidArgument

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
ENGLISH = "The engineers who were building the engines of this ship have written about every single one of them. " * 3
GERMAN = (
    "Die Häuser in dieser Straße wurden von den Ingenieuren gebaut, die auch die Maschinen der Schiffe bauten. " * 3
)
FRENCH = (
    "Les ingénieurs qui construisaient les moteurs de ces navires ont écrit sur chacun d'entre eux, disaient-ils. " * 3
)


class Index:
    """The index of a database of its own, with documents made as they are needed."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.search = PostgresSearch(pool)
        self._documents = PostgresDocuments(pool)

    async def document(self, name: str, *, tenant: str = "acme", at: dt.datetime = NOW) -> str:
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        document = Document(tenant, sha256, f"{name}.pdf", MediaType.PDF, 100, at)
        async with self._documents.locked(tenant, document.id) as record:
            await record.insert(document)
        return document.id

    async def add(self, name: str, *texts: str, tenant: str = "acme", at: dt.datetime = NOW) -> str:
        """Indexes the texts as the pages of a document."""
        document = await self.document(name, tenant=tenant, at=at)
        await self.write([IndexablePage(tenant, document, number, text) for number, text in enumerate(texts, 1)])
        return document

    async def write(self, pages: Sequence[IndexablePage]) -> None:
        async with self.pool.connection() as connection:
            await index_pages(connection, pages)

    async def find(
        self, query: str, *, tenant: str = "acme", limit: int = 100, after: Place | None = None, **only: Any
    ) -> Sequence[FoundPage]:
        return await self.search.find(
            tenant, parse_query(query), Filters(**only), after=after, limit=limit, timeout_s=5
        )

    async def names(self, query: str, **options: Any) -> list[str]:
        return [found.display_name.removesuffix(".pdf") for found in await self.find(query, **options)]

    async def rows(self, statement: str, tenant: str = "acme") -> list[Any]:
        async with self.pool.connection() as connection:
            await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
            return await (await connection.execute(statement)).fetchall()


@pytest.fixture
async def index(database: Callable[[str], str]) -> AsyncIterator[Index]:
    pool = await open_pool(database("extractor"), name="test")
    try:
        yield Index(pool)
    finally:
        await pool.close()


async def test_words_phrases_prefixes_alternatives_and_exclusions(index: Index) -> None:
    await index.add("ship", "The red engine of the ship.")
    await index.add("car", "A red car has an engine, a small one.")
    await index.add("sky", "The sky is blue.")
    assert sorted(await index.names("engine")) == ["car", "ship"]
    assert sorted(await index.names("RED engine")) == ["car", "ship"]
    assert await index.names('"red engine"') == ["ship"]
    assert await index.names('"engine red"') == []
    assert sorted(await index.names("engi*")) == ["car", "ship"]
    assert await index.names("engi") == []
    assert await index.names("engine -car") == ["ship"]
    assert await index.names('red -"red engine"') == ["car"]
    assert sorted(await index.names("sky or ship")) == ["ship", "sky"]
    assert await index.names("red sky or ship") == ["ship"]
    assert await index.names("red blue") == []
    assert await index.names("nothing") == []


@pytest.mark.parametrize(
    ("text", "query"),
    [
        (ENGLISH, "engine builds"),
        (GERMAN, "Haus gebauten Maschine"),
        (GERMAN, '"in dieser Straße"'),
        (FRENCH, "moteur ingénieur"),
        (FRENCH, '"les moteurs de ces navires"'),
    ],
)
async def test_words_are_found_in_other_forms_by_the_rules_of_the_pages_language(
    index: Index, text: str, query: str
) -> None:
    await index.add("it", text)
    await index.add("english", ENGLISH)
    await index.add("other", "Nothing of that kind is written on this page, and nobody would look for it here. " * 3)
    assert "it" in await index.names(query)
    assert "other" not in await index.names(query)


async def test_pages_know_their_language_and_short_ones_take_their_documents(index: Index) -> None:
    await index.add("deutsch", GERMAN, "Inhalt", GERMAN, "", "17 18 19")
    await index.add("short", "7")
    found = await index.rows("SELECT language FROM extractor.page_index ORDER BY document_id, page")
    assert sorted(language for (language,) in found) == ["", "de", "de", "de", "de", "de"]
    assert [found.page for found in await index.find("Inhalte")] == [2], "stemmed as German"
    assert {found.language for found in await index.find("Maschine", languages=("de",))} == {"de"}
    assert await index.find("Maschine", languages=("en",)) == []


async def test_the_language_of_a_long_document_is_not_asked_of_each_page_but_noticed_when_it_changes(
    index: Index,
) -> None:
    await index.add("long", *[GERMAN] * 30, *[ENGLISH] * 30)
    found = await index.rows("SELECT language FROM extractor.page_index ORDER BY page")
    languages = [language for (language,) in found]
    assert languages[:30] == ["de"] * 30
    assert languages[38:] == ["en"] * 22
    await index.add("mixed", *[GERMAN, ENGLISH] * 15)
    found = await index.rows(
        "SELECT language FROM extractor.page_index JOIN extractor.documents ON id = document_id"
        " WHERE display_name = 'mixed.pdf' ORDER BY page"
    )
    assert [language for (language,) in found] == ["de", "en"] * 15


async def test_an_exclusion_holds_in_every_language(index: Index) -> None:
    # Stemmed as English it would be another word than on the German page, and exclude nothing.
    await index.add("deutsch", GERMAN)
    await index.add("english", ENGLISH + " Maschinen")
    await index.add("plain", ENGLISH + " Schiffe")
    assert await index.names("Schiffe -Häuser") == ["plain"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("全文検索エンジンの設計と実装について説明する。", "検索エンジン"),
        ("全文検索エンジンの設計と実装について説明する。", "設"),
        ("全文検索エンジンの設計と実装について説明する。", "。実装"),
        ("这是一个关于全文检索系统的说明文件。", "检索系统"),
        ("这是一个关于全文检索\n系统的说明文件。", "检索系统"),
        ("이 문서는 검색 엔진에 대한 설명입니다.", "검색 엔진"),
        ("新しいPDF文書を読む", "PDF文書"),
        ("新しいPDF文書を読む", "しいPDF"),
    ],
)
async def test_scripts_without_spaces_are_found_by_any_run_of_them(index: Index, text: str, query: str) -> None:
    await index.add("it", text)
    await index.add("other", "別の文。他文。")
    assert await index.names(query) == ["it"]
    assert await index.names("索検") == []


async def test_the_better_page_comes_first(index: Index) -> None:
    await index.add("once", "An engine. " + "Something else is told at length here, and then more of it. " * 20)
    await index.add("much", "Engine by engine: the engine of an engine.")
    assert await index.names("engine") == ["much", "once"]
    scores = [found.score for found in await index.find("engine")]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


async def test_parts_are_stable_whatever_is_added_meanwhile(index: Index) -> None:
    for number in range(12):
        await index.add(f"d{number}", "engine " * (number % 4 + 1) + f"and word{number}", "no match")
    whole = await index.find("engine")
    assert len(whole) == 12
    seen: list[FoundPage] = []
    place = None
    while part := await index.find("engine", limit=5, after=place):
        seen += part
        last = part[-1]
        place = Place(last.score, last.document_id, last.page)
        await index.add(f"late{len(seen)}", "engine " * 50)
    assert [found for found in seen if not found.display_name.startswith("late")] == whole
    assert len(set(seen)) == len(seen)


async def test_filters(index: Index) -> None:
    old = await index.add("old", "engine", at=NOW - dt.timedelta(days=2))
    new = await index.add("new", "engine", at=NOW)
    assert await index.names("engine", documents=(old,)) == ["old"]
    assert await index.names("engine", stored_after=NOW) == ["new"]
    assert await index.names("engine", stored_before=NOW) == ["old"]
    assert sorted(await index.names("engine", documents=(old, new))) == ["new", "old"]
    assert await index.names("engine", documents=("0" * 32,)) == []


async def test_another_tenant_finds_nothing_and_neither_does_a_query_without_its_tenant(index: Index) -> None:
    document = await index.add("ours", "engine")
    await index.add("theirs", "engine", tenant="other")
    assert await index.names("engine") == ["ours"]
    assert await index.names("engine", tenant="other") == ["theirs"]
    assert await index.names("engine", tenant="third") == []
    assert await index.names("engine", tenant="other", documents=(document,)) == []
    count = "SELECT tenant, count(*) FROM extractor.page_index GROUP BY tenant"
    assert await index.rows(count) == [("acme", 1)], "row security, where a query forgets its tenant"
    async with index.pool.connection() as connection:
        assert await (await connection.execute(count)).fetchall() == []
        await connection.execute("SELECT set_config('pagemesh.query', '''engin'' | !''x''', true)")
        assert await (await connection.execute(count)).fetchall() == [], "a query alone opens nothing"


async def test_a_query_that_spells_another_tenants_lexeme_finds_nothing_of_it(index: Index) -> None:
    await index.add("theirs", "engine", tenant="other")
    lexeme = "\x01" + hashlib.md5(b"other").hexdigest()
    await index.add("ours", f"engine {lexeme} {lexeme}/en '{lexeme}'")
    assert await index.names(f"{lexeme} or '{lexeme}' or engine") == ["ours"]
    (tsv,) = (await index.rows("SELECT tsv::text FROM extractor.page_index"))[0]
    assert lexeme not in tsv


async def test_erased_documents_are_not_found_and_take_their_entries_with_them(index: Index) -> None:
    document = await index.add("it", "engine", "engine")
    async with index.pool.connection() as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        await connection.execute("UPDATE extractor.documents SET erase_time = now()")
    assert await index.names("engine") == []
    await index.write([IndexablePage("acme", document, 3, "engine")])
    assert await index.rows("SELECT count(*) FROM extractor.page_index") == [(2,)], "nothing is added any more"
    async with index.pool.connection() as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        await connection.execute("DELETE FROM extractor.documents")
    assert await index.rows("SELECT count(*) FROM extractor.page_index") == [(0,)]


async def test_pages_written_again_are_there_once(index: Index) -> None:
    document = await index.add("it", "engine", "engine")
    await index.write([IndexablePage("acme", document, n, text) for n, text in ((2, "x"), (2, "motor"), (3, "more"))])
    assert await index.rows("SELECT count(*) FROM extractor.page_index") == [(3,)]
    assert await index.rows("SELECT searchable_pages FROM extractor.documents") == [(3,)]
    assert [found.page for found in await index.find("engine")] == [1]
    assert [found.page for found in await index.find("motor")] == [2]


async def test_a_page_without_text_does_not_take_the_place_of_one_whose_text_was_recognised(index: Index) -> None:
    document = await index.add("it", "engine")
    await index.write([IndexablePage("acme", document, 1, "")])
    assert await index.names("engine") == ["it"]


async def test_many_tenants_in_one_transaction(index: Index) -> None:
    pages = []
    for number in range(3):
        for tenant in ("b", "a", "c"):
            document = await index.document(f"{tenant}{number}", tenant=tenant)
            pages.append(IndexablePage(tenant, document, 1, f"engine {tenant}"))
    pages.append(IndexablePage("a", "0" * 32, 1, "engine of a document that is not there"))
    await index.write(pages)
    for tenant in ("a", "b", "c"):
        assert len(await index.find("engine", tenant=tenant)) == 3


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("word " * 800_000, id="four megabytes"),
        pytest.param("".join(chr(0x4E00 + at % 20_000) for at in range(500_000)), id="CJK without an end"),
        pytest.param(" ".join(f"ab{n:x}-cd{n:x}-ef{n:x}-gh{n:x}" for n in range(100_000)), id="compounds"),
        pytest.param(" ".join(f"h{n:x}.de/p{n:x}?q" for n in range(100_000)), id="addresses"),
        pytest.param(
            " ".join(f"{chr(0xE0 + n % 30)}-{chr(0x400 + n // 30 % 200)}" for n in range(100_000)), id="short"
        ),
        *(
            pytest.param(sign * 1_000_000, id=f"only {sign}")
            for sign in ("a", "a-", "a.", "a@", "<a", "/a", "1e", "-1.")
        ),
        pytest.param("engine \x00\x01\x02 \ud800 \udfff \x7f 😀 \ufffe", id="what Postgres refuses"),
    ],
)
async def test_hostile_text_is_indexed_as_far_as_it_can_be(index: Index, text: str) -> None:
    document = await index.add("it", "engine " + text)
    assert [found.document_id for found in await index.find("engine")] == [document]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80) | st.text(alphabet="ab'\"\\&|!<>():*-\x00 😀字検or", max_size=40))
async def test_no_query_is_anything_but_words(index: Index, query: str) -> None:
    if not await index.rows("SELECT 1 FROM extractor.page_languages"):
        await index.add("en", ENGLISH)
        await index.add("ja", "全文検索エンジンの設計と実装について説明する。")
        await index.add("theirs", ENGLISH, tenant="other")
    try:
        parsed = parse_query(query)
    except InvalidArgument:
        return
    assert "theirs" not in await index.names(query)
    words = sorted({word for term in parsed.wanted for word in term.text.split()})
    assert (await index.search.lexemes({"en": words}, timeout_s=5))["en"].keys() == set(words)


async def test_what_a_page_says_is_found_again(index: Index) -> None:
    """Any word of a page, quoted as it stands there, finds the page: signs around it and in it do no harm."""
    words = ["O'Neill", "C++", "a\\b", "x&y", "(see)", "e=mc²", "naïve", "50%", "foo-bar", "user@example.com"]
    words += [
        "\u201cquoted\u201d",
        "\u2018single\u2019",
        "long\u2014dash",
        "•bullet",
        "\ufb01rst",
        "cafe\u0301",
        "soft\u00adhyphen",
        "\uff21\uff22\uff23",
        "«guillemets»",
    ]
    await index.add("it", ENGLISH + " ; ".join(words))
    for word in words:
        assert await index.names(f'"{word}"') == ["it"], word
    for word in (
        "quoted",
        "single",
        "dash",
        "bullet",
        "first",
        "café",
        "softhyphen",
        "abc",
        "guillemets",
        "neill",
        "see",
    ):
        assert await index.names(word) == ["it"], word


async def test_a_search_that_takes_too_long_is_ended(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    await index.add("it", "engine")
    monkeypatch.setattr(postgres_search, "_FIND", "SELECT pg_sleep(20), %(limit)s")
    with pytest.raises(DeadlineExceeded) as refused:
        await index.search.find("acme", parse_query("engine"), Filters(), after=None, limit=5, timeout_s=0.05)
    assert refused.value.reason == "SEARCH_TIMEOUT"


async def test_the_index_is_used_and_no_other_tenants_pages_are_read(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = []
    for tenant, count in (("big", 60), ("small", 4)):
        for number in range(count):
            document = await index.document(f"{tenant}{number}", tenant=tenant)
            pages += [
                IndexablePage(tenant, document, n, f"engine word{number * 50 + n} {ENGLISH}") for n in range(1, 51)
            ]
    await index.write(pages)
    async with index.pool.connection() as connection:
        await connection.set_autocommit(True)
        await connection.execute("VACUUM ANALYZE extractor.page_index")
        await connection.execute("VACUUM ANALYZE extractor.documents")
        await connection.set_autocommit(False)
    plans: list[Any] = []
    monkeypatch.setattr(postgres_search, "_FIND", "EXPLAIN (ANALYZE, FORMAT JSON) " + postgres_search._FIND)
    monkeypatch.setattr(postgres_search, "FoundPage", plans.append)
    for tenant, own in (("big", 3000), ("small", 200)):
        for query, matching in (("engine", own), ("word77", 1), ('"engine word77"', 1), ("engin* word77", 1)):
            await index.find(query, tenant=tenant)
            read = [
                node for node in _nodes(plans.pop()[0]["Plan"]) if node.get("Index Name", "").startswith("page_index")
            ]
            assert read, "through an index"
            for node in read:
                assert node["Index Name"] == "page_index_tsv" or tenant == "small" or matching == own, (tenant, query)
                rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
                assert rows <= (matching if node["Index Name"] == "page_index_tsv" else own), (tenant, query)


def _nodes(plan: Any) -> Any:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


async def test_postgres_has_the_configurations_that_languages_name(index: Index) -> None:
    async with index.pool.connection() as connection:
        for language in (*CONFIGURATIONS, "xx"):
            await connection.execute("SELECT to_tsvector(%s::regconfig, 'word')", (configuration(language),))
