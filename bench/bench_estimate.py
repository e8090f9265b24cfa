"""How close an estimate comes to what the run then costs: summaries, fields and answers.

The model is Mistral's API spoken by a fake that writes sentences and quotes of many lengths, as the prompt asks for,
and charges what the real tokenizer counts. Each piece of work is estimated once and done in several moods of the fake,
which says something else in each. Two errors are told of each kind: that of the expected price against the mean of its
runs, which is the estimator's own, and that against each run, in which the fake's whims are too. The ratio is the error
of summaries against a run that nine of ten stay under.

Summaries are of the papers and files of the corpus, in each length; so are answers, whose questions are words of a
page. Fields are those of forms that are made up: their labels and tables are worded otherwise than the schema in part.
"""

import asyncio
import os
import random
import statistics
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bench.bench_offline_summary import pages_of
from bench.report import report, skip
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory_prices import MemoryPrices
from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.domain.values import Length, Page
from tests.fakes.made_forms import SCHEMA, SCHEMA_OF_LINES, made_form
from tests.fakes.mistral_server import MistralServer, summary_of
from tests.fakes.writing_model import Writer
from tests.unit.summarizer.flow.estimating import (
    PRICES,
    SMALL,
    Estimated,
    estimating,
    estimating_fields,
    estimating_question,
)
from tests.unit.summarizer.flow.parts import ALICE, page
from tests.unit.summarizer.text.papers import pdf_pages

NAME = "estimate_error"
GOAL = 0.15
_FILES = 40
"""So many PDFs of the corpus are taken."""
_MOODS = 3
_FORMS = 16
_WORDS_OF_QUESTION = 4


@dataclass(frozen=True)
class Work:
    """Something to do, and what it was estimated and billed at in each mood, in micro-units."""

    name: str
    found: Estimated
    costs: tuple[int, ...]

    @property
    def errors(self) -> list[float]:
        """Against each run."""
        return [abs(self.found.expected.cost.micros - cost) / cost for cost in self.costs]

    @property
    def own_error(self) -> float:
        """Against the mean of the runs."""
        mean = statistics.mean(self.costs)
        return abs(self.found.expected.cost.micros - mean) / mean


Once = Callable[[MistralProvider], Awaitable[tuple[Estimated, int]]]
"""An estimate and what one run then cost."""
Says = Callable[[dict[str, Any]], dict[str, Any]]
Documents = Sequence[tuple[str, list[Page]]]


def main() -> None:
    """Prints the line; skips where there are no documents."""
    documents = list(_documents(Path(os.environ.get("PAGEMESH_CORPUS", "../shared/corpus"))))
    if not documents:
        skip(NAME, "PAGEMESH_CORPUS names no folder with documents")
        return
    summaries = _done(list(_summaries(documents, Length)), Writer)
    detail: dict[str, object] = {"documents": len(documents), "moods": _MOODS, "summaries": _spread(summaries)}
    worst = sorted(summaries, key=lambda work: -work.own_error)[:3]
    detail["worst_are"] = [f"{work.name}: {work.own_error:.3f}" for work in worst]
    detail["questions"] = _spread(_done(list(_questions(documents)), Writer))
    for name, schema in (("fields", SCHEMA), ("fields_with_rows", SCHEMA_OF_LINES)):
        works, entries = _fields(schema)
        detail[name] = _spread(_done(works, lambda mood, entries=entries: Writer(mood, entries)))  # type: ignore[misc]
    # A lazy model copies whole sentences of the document and quotes each with itself: no rule of ours knows that.
    copied = _done(list(_summaries(documents, (Length.SHORT,))), lambda _: summary_of, moods=1)
    detail["copying_model"] = _spread(copied)
    report(NAME, ratio=_nine_of_ten(summaries), goal=GOAL, better="lower", detail=detail)


def _documents(folder: Path) -> Iterator[tuple[str, list[Page]]]:
    for path in sorted((folder / "papers").glob("*.txt")):
        yield path.name, pages_of(path.read_text())
    for path in sorted((folder / "clean").glob("*.pdf"))[:_FILES]:
        pages = pdf_pages(path)
        if sum(len(page.text.split()) for page in pages):
            yield path.name, pages


def _summaries(documents: Documents, lengths: Sequence[Length] | type[Length]) -> Iterator[tuple[str, Once]]:
    for name, pages in documents:
        for length in lengths:
            yield (
                f"{name} {length.name.lower()}",
                lambda provider, pages=pages, length=length: estimating(  # type: ignore[misc]
                    provider, SMALL, MemoryPrices(PRICES), pages, length
                ),
            )


def _questions(documents: Documents) -> Iterator[tuple[str, Once]]:
    for name, pages in documents:
        words = max((page.text.split() for page in pages), key=len)
        start = random.Random(name).randint(0, max(0, len(words) - _WORDS_OF_QUESTION))
        text = " ".join(words[start : start + _WORDS_OF_QUESTION])[:500]
        if any(map(str.isalnum, text)):
            yield (
                name,
                lambda provider, pages=pages, text=text: estimating_question(  # type: ignore[misc]
                    provider, SMALL, MemoryPrices(PRICES), pages, text
                ),
            )


def _fields(schema: dict[str, Any]) -> tuple[list[tuple[str, Once]], list[Any]]:
    forms = [made_form(seed, rows=(0, 5, 15, 40)[seed % 4], prose=(2, 10, 40)[seed % 3]) for seed in range(_FORMS)]
    works: list[tuple[str, Once]] = []
    for number, form in enumerate(forms):
        pages = [page(at, text) for at, text in enumerate(form.pages, start=1)]
        works.append(
            (
                f"form {number}",
                lambda provider, pages=pages: estimating_fields(  # type: ignore[misc]
                    provider, SMALL, MemoryPrices(PRICES), pages, schema
                ),
            )
        )
    return works, [entry for form in forms for entry in form.entries]


def _done(works: Sequence[tuple[str, Once]], says: Callable[[int], Says], moods: int = _MOODS) -> list[Work]:
    """All of it, in each mood."""
    runs = [asyncio.run(_in_a_mood(works, says(mood))) for mood in range(moods)]
    done = zip(works, zip(*runs, strict=True), strict=True)
    return [Work(name, each[0][0], tuple(cost for _, cost in each if cost)) for (name, _), each in done]


async def _in_a_mood(works: Sequence[tuple[str, Once]], says: Says) -> list[tuple[Estimated, int]]:
    with MistralServer(says=says, count_text=tekken_counter()) as server, act_as(ALICE):
        provider = MistralProvider(api_key=SecretStr("k"), url=server.url, count_text=tekken_counter())
        async with provider:
            return [await once(provider) for _, once in works]


def _nine_of_ten(works: Sequence[Work]) -> float:
    return statistics.quantiles([error for work in works for error in work.errors], n=10)[-1]


def _spread(works: Sequence[Work]) -> dict[str, float]:
    """Of the work that cost anything."""
    works = [work for work in works if work.costs]
    own, errors = [work.own_error for work in works], [error for work in works for error in work.errors]
    billed = sum(statistics.mean(work.costs) for work in works)
    spread: dict[str, float] = {
        "works": len(works),
        "all_together": abs(sum(work.found.expected.cost.micros for work in works) - billed) / billed,
        "own_median": statistics.median(own),
        "own_nine_of_ten": statistics.quantiles(own, n=10)[-1],
        "own_worst": max(own),
        "own_share_within_goal": sum(error <= GOAL for error in own) / len(own),
        "runs_median": statistics.median(errors),
        "runs_nine_of_ten": _nine_of_ten(works),
        "runs_share_within_goal": sum(error <= GOAL for error in errors) / len(errors),
        "runs_above_high": sum(cost > work.found.high.cost.micros for work in works for cost in work.costs),
    }
    return {name: round(value, 3) for name, value in spread.items()}


if __name__ == "__main__":
    main()
