"""How close an estimate comes to what the run then costs, over the papers and files of the corpus.

The model is Mistral's API spoken by a fake that writes sentences and quotes of many lengths, as the prompt asks for,
and charges what the real tokenizer counts. Each document is estimated and then summarised, in each length; the error is
that of the expected price against the bill. The ratio is the error that nine of ten runs stay under; what all runs
together cost, the median and the worst are in the detail. How many words a model spends on a sentence is its whim:
where the text is a page or less, that whim is most of the bill.
"""

import asyncio
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import SecretStr

from bench.bench_offline_summary import pages_of
from bench.report import report, skip
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory_prices import MemoryPrices
from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.domain.values import Length, Page
from tests.fakes.mistral_server import MistralServer, summary_of
from tests.fakes.writing_model import write
from tests.unit.summarizer.flow.estimating import PRICES, SMALL, Estimated, estimating
from tests.unit.summarizer.flow.parts import ALICE
from tests.unit.summarizer.text.papers import pdf_pages

NAME = "estimate_error"
GOAL = 0.15
_FILES = 40
"""So many PDFs of the corpus are taken: with the papers about a minute of work."""


def main() -> None:
    """Prints the line; skips where there are no documents."""
    folder = Path(os.environ.get("PAGEMESH_CORPUS", "../shared/corpus"))
    documents = list(_documents(folder))
    if not documents:
        skip(NAME, "PAGEMESH_CORPUS names no folder with documents")
        return
    writer = asyncio.run(_errors(documents, MistralServer(says=write, count_text=tekken_counter())))
    echo = asyncio.run(_errors(documents, MistralServer(says=summary_of, count_text=tekken_counter())))
    beyond = sum(not found.low.cost.micros <= cost <= found.high.cost.micros for _, found, cost in writer + echo)
    detail: dict[str, object] = {"documents": len(documents), "runs": len(writer), "errors": _spread(writer)}
    detail |= {"outside_of_low_and_high": beyond}
    detail |= {"worst_are": [f"{name}: {_error(f, c):.3f}" for name, f, c in _by_error(writer)[:3]]}
    # A lazy model copies whole sentences of the document and quotes each with itself: no rule of ours knows that.
    detail["copying_model"] = _spread(echo)
    report(NAME, ratio=_spread(writer)["nine_of_ten"], goal=GOAL, better="lower", detail=detail)


def _documents(folder: Path) -> Iterator[tuple[str, list[Page]]]:
    for path in sorted((folder / "papers").glob("*.txt")):
        yield path.name, pages_of(path.read_text())
    for path in sorted((folder / "clean").glob("*.pdf"))[:_FILES]:
        pages = pdf_pages(path)
        if sum(len(page.text.split()) for page in pages):
            yield path.name, pages


Run = tuple[str, Estimated, int]


async def _errors(documents: Sequence[tuple[str, list[Page]]], server: MistralServer) -> list[Run]:
    runs: list[Run] = []
    with server, act_as(ALICE):
        provider = MistralProvider(api_key=SecretStr("k"), url=server.url, count_text=tekken_counter())
        async with provider:
            for name, pages in documents:
                for length in Length:
                    found, cost = await estimating(provider, SMALL, MemoryPrices(PRICES), pages, length)
                    runs.append((f"{name} {length.name.lower()}", found, cost))
    return runs


def _error(found: Estimated, cost: int) -> float:
    return abs(found.expected.cost.micros - cost) / cost


def _by_error(runs: Sequence[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: -_error(run[1], run[2]))


def _spread(runs: Sequence[Run]) -> dict[str, float]:
    errors = [_error(found, cost) for _, found, cost in runs]
    billed = sum(cost for _, _, cost in runs)
    expected = sum(found.expected.cost.micros for _, found, _ in runs)
    spread = {
        "all_together": abs(expected - billed) / billed,
        "median": statistics.median(errors),
        "nine_of_ten": statistics.quantiles(errors, n=10)[-1],
        "worst": max(errors),
        "share_within_goal": sum(error <= GOAL for error in errors) / len(errors),
    }
    return {name: round(value, 3) for name, value in spread.items()}


if __name__ == "__main__":
    main()
