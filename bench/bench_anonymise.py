"""How fast personal data is found and replaced, against one pass of a regular expression over the same text.

The limit is what any search has to pay: one look at each character for a digit or an @. Text of prose, of letters with
a value in each line, and of hostile repetitions takes turns; the ratio is that of the prose.
"""

import random
import re
import statistics
import time
from collections.abc import Callable

from bench.report import report
from services.summarizer.domain.personal_kinds import ALL
from services.summarizer.domain.veil import Veil

ROUNDS = 5
CHARS = 200_000
GOAL = 40.0
"""Passes over the text that all eight kinds may come to."""
_LIMIT = re.compile(r"[\d@]")
_PROSE = "the bees make honey from nectar of Flowers and they live together in hives that they build."
_VALUES = (
    "Dear Mrs Ada Lovelace, ", "mail ada@example.org or ", "Tel. 0171 2345678, ", "IBAN DE89 3704 0044 0532 0130 00\n"
)  # fmt: skip


def prose() -> str:
    """Words without anything personal."""
    chance, words = random.Random(1), _PROSE.split()
    return " ".join(chance.choice(words) for _ in range(CHARS // 6))[:CHARS]


def taken_s(work: Callable[[str], object], text: str) -> float:
    """Median processor time of some rounds."""
    times = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        work(text)
        times.append(time.process_time() - begun)
    return statistics.median(times)


def hide(text: str) -> None:
    """Both passes over a request of one page."""
    veil = Veil(ALL)
    veil.learn(text)
    veil.hide(text)


def main() -> None:
    """Prints the line."""
    texts = {"prose": prose(), "letters": ("".join(_VALUES) * CHARS)[:CHARS], "hostile": ("1 Herr A@" * CHARS)[:CHARS]}
    hide("0171 2345678")  # loads the rules of the countries
    speeds: dict[str, dict[str, float]] = {}
    ratios: dict[str, float] = {}
    for name, text in texts.items():
        limit, own = taken_s(lambda text: sum(1 for _ in _LIMIT.finditer(text)), text), taken_s(hide, text)
        ratios[name] = own / limit
        speeds[name] = {"mb_s": round(CHARS / own / 1e6, 2), "limit_mb_s": round(CHARS / limit / 1e6, 2)}
    report("anonymise", ratio=ratios["prose"], goal=GOAL, better="lower", detail=speeds)


if __name__ == "__main__":
    main()
