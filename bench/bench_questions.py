"""How often the page that holds the answer is among those that a model would be given, against plain searches.

Papers of the corpus are cut into pages of about 2,500 characters and put into the real index: one tenant, all papers.
Questions are made out of the pages themselves: a sentence is drawn, some of its content words are kept, in another
order and half of them with another ending, and put into a question, every other time with a word that nobody wrote. So
each question has one page that answers it. Counted is how often that page is among the first 8, and how often it is
first. The peers are SearchPages of the question as it is asked, which wants all of its words, and of all its words with
`or` between them, which is what somebody does who knows the search; the ratio is ours by the better one of both. Also
told: searches and milliseconds for a question. The corpus is the folder PAGEMESH_CORPUS (../shared/corpus where it is
not set); without it, pages of made words are asked.
"""

import asyncio
import hashlib
import os
import random
import re
import statistics
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.own_postgres import own_postgres
from bench.report import report
from services.database.pool import Pool, open_pool
from services.extractor.adapters.postgres_index import IndexablePage, index_pages
from services.extractor.adapters.postgres_search import PostgresSearch
from services.extractor.domain import search as extractor_search
from services.extractor.domain.search_query import parse_query
from services.summarizer.domain.language import FUNCTION_WORDS
from services.summarizer.domain.passages import PassageFinder
from services.summarizer.domain.ports import PageFailed
from services.summarizer.domain.ports_questions import DocumentState, Filters, PageAt
from services.summarizer.domain.questions import DEFAULT_PASSAGES, Question
from services.summarizer.domain.values import Page

NAME = "questions"
GOAL = 1.1
QUESTIONS = 300
PAGE_CHARS = 2_500
_ROOT = Path(__file__).parent.parent
_RANDOM = random.Random(21)
_FRAMES = (
    "What is said about {words}?",
    "How does the author explain {words}?",
    "Why would somebody care whether {words}?",
    "Which reasons are there for {words}?",
    "Can you tell me what {words} means?",
)
_ELSEWHERE = ("colleagues", "yesterday", "overview", "briefly", "opinion")
_ENDINGS = (("ies", "y"), ("s", ""), ("ing", "e"), ("ed", ""), ("", "s"))


@dataclass(frozen=True)
class Asked:
    """A question, and the page that holds its answer."""

    text: str
    at: PageAt


class Books:
    """The pages: found by the real index, read from memory."""

    def __init__(self, pool: Pool, pages: dict[PageAt, str]) -> None:
        self._index = PostgresSearch(pool)
        self._pages = pages
        self.searches = 0

    async def near(self, text: str, filters: Filters, limit: int) -> Sequence[PageAt]:
        """None: no page has a vector here."""
        return []

    async def find(self, query: str, filters: Filters, limit: int) -> Sequence[PageAt]:
        self.searches += 1
        found = await self._index.find(
            "acme", parse_query(query), extractor_search.Filters(), after=None, limit=limit, timeout_s=10
        )
        return [PageAt(f"documents/{page.document_id}", page.page) for page in found]

    async def look(self, document: str) -> DocumentState:
        raise AssertionError("no document is named")

    async def read(
        self, document: str, *, first_page: int = 0, last_page: int = 0, words: bool = True
    ) -> AsyncGenerator[Page | PageFailed, None]:
        for number in range(first_page, last_page + 1):
            yield Page(number, self._pages[PageAt(document, number)], ())


def main() -> None:
    """Prints the line."""
    texts = papers() or made_papers()
    with own_postgres("extractor") as dsn:
        asyncio.run(measure(dsn, texts))


def papers() -> list[str]:
    """Texts of the corpus; none where it is not there."""
    folder = Path(os.environ.get("PAGEMESH_CORPUS", "../shared/corpus")) / "papers"
    return [path.read_text() for path in sorted(folder.glob("*.txt"))]


def made_papers() -> list[str]:
    """Texts of made words."""
    words = ["".join(_RANDOM.choices("abdegiklmnoprstu", k=_RANDOM.randint(4, 9))) for _ in range(8_000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    common = sorted(FUNCTION_WORDS["en"])

    def sentence() -> str:
        own = _RANDOM.choices(words, weights, k=9) + _RANDOM.choices(common, k=7)
        _RANDOM.shuffle(own)
        return " ".join(own).capitalize() + "."

    return ["\n".join(sentence() for _ in range(600)) for _ in range(6)]


def cut(text: str) -> list[str]:
    """Pages that end with a line."""
    pages, page = [], ""
    for line in text.splitlines(keepends=True):
        page += line
        if len(page) >= PAGE_CHARS:
            pages.append(page)
            page = ""
    return [*pages, page] if page.strip() else pages


def questions(pages: dict[PageAt, str]) -> list[Asked]:
    """As many as QUESTIONS, of pages by turns."""
    asked: list[Asked] = []
    places = sorted(pages)
    _RANDOM.shuffle(places)
    while len(asked) < QUESTIONS:
        for at in places:
            running = " ".join(pages[at].split())
            sentences = [s for s in re.split(r"(?<=[.!?])\s+", running) if 8 <= len(content(s)) <= 30]
            if sentences and len(asked) < QUESTIONS:
                asked.append(Asked(question(_RANDOM.choice(sentences)), at))
    return asked


def content(text: str) -> list[str]:
    """Words that say something."""
    words = re.findall(r"[A-Za-z]{4,}", text)
    return [word for word in words if word.lower() not in FUNCTION_WORDS["en"]]


def question(sentence: str) -> str:
    kept = _RANDOM.sample(content(sentence), k=_RANDOM.randint(3, 6))
    turned = [otherwise(word) if _RANDOM.random() < 0.5 else word for word in kept]
    elsewhere = [_RANDOM.choice(_ELSEWHERE)] if _RANDOM.random() < 0.5 else []
    words = " and ".join([*turned, *elsewhere])
    return _RANDOM.choice(_FRAMES).format(words=words.lower())


def otherwise(word: str) -> str:
    """The word with another ending."""
    for end, instead in _ENDINGS:
        if word.endswith(end):
            return word[: len(word) - len(end)] + instead
    return word


async def fill(pool: Pool, texts: Sequence[str]) -> dict[PageAt, str]:
    """Indexes the pages of all texts."""
    pages: dict[PageAt, str] = {}
    for text in texts:
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        own = cut(text)
        async with pool.connection() as connection:
            await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
            await connection.execute(
                "INSERT INTO extractor.documents (tenant, id, sha256, display_name, media_type, size_bytes,"
                " create_time, retention, expire_time) VALUES ('acme', left(%s, 32), %s, 'a.pdf', 'application/pdf', 9,"
                " now(), 'KEPT', now() + interval '1 year')",
                (sha256, sha256),
            )
            batch = [IndexablePage("acme", sha256[:32], n, page) for n, page in enumerate(own, start=1)]
            await index_pages(connection, batch)
        pages |= {PageAt(f"documents/{sha256[:32]}", n): page for n, page in enumerate(own, start=1)}
    return pages


async def measure(dsn: str, texts: Sequence[str]) -> None:
    pool = await open_pool(dsn, name="bench")
    try:
        pages = await fill(pool, texts)
        books = Books(pool, pages)
        finder = PassageFinder(search=books, reader=books)
        places: dict[str, list[int | None]] = {"ours": [], "all words": [], "any word": []}
        took: dict[str, list[float]] = {name: [] for name in places}
        searches = 0
        for asked in questions(pages):
            ways = {
                "ours": choosing(finder, asked.text),
                "all words": finding(books, asked.text),
                "any word": finding(books, " or ".join(re.findall(r"\w+", asked.text))),
            }
            for name, way in ways.items():
                before, begun = books.searches, time.perf_counter()
                places[name].append(place(asked.at, await way))
                took[name].append(time.perf_counter() - begun)
                searches += books.searches - before if name == "ours" else 0
        among = {name: share(found, DEFAULT_PASSAGES) for name, found in places.items()}
        detail = {
            "pages": len(pages),
            "questions": QUESTIONS,
            "among_8": among,
            "first": {name: share(found, 1) for name, found in places.items()},
            "searches_a_question": round(searches / QUESTIONS, 1),
            "p50_ms": {name: round(statistics.median(times) * 1000, 1) for name, times in took.items()},
        }
        best = max(among["all words"], among["any word"])
        report(NAME, ratio=among["ours"] / best, goal=GOAL, better="higher", detail=detail)
    finally:
        await pool.close()


async def choosing(finder: PassageFinder, text: str) -> Sequence[PageAt]:
    return (await finder.choose(Question(text), {}, lambda _: None)).pages


async def finding(books: Books, query: str) -> Sequence[PageAt]:
    return await books.find(query, Filters(), DEFAULT_PASSAGES)


def place(at: PageAt, found: Sequence[PageAt]) -> int | None:
    """Which one it is, from 1; None where it is not there."""
    return list(found).index(at) + 1 if at in found else None


def share(places: Sequence[int | None], most: int) -> float:
    """Share of the questions whose page is among the first `most`."""
    return round(sum(place is not None and place <= most for place in places) / len(places), 3)


if __name__ == "__main__":
    main()
