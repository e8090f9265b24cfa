"""How surely a citation finds the words that a model quotes, and only those.

True quotes are runs of 8 to 30 words of a page, distorted the way that models and typesetting do: ligatures, quotation
marks, dashes, case, spaces, hyphens at the ends of lines, words left out behind an ellipsis, a letter that was read
wrongly. One is found where the citation stands on its page, or on another one that has the very words. Quotes of other
documents, distorted in the same way, must not be found; those are left out whose words the document has by chance.
Two lines: the share that was found (goal 0.99), and the share of false matches (goal 0.001).
"""

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pymupdf

from bench.report import report, skip
from services.summarizer.domain.citations import Locator
from services.summarizer.domain.folding import fold
from services.summarizer.domain.values import Box, Page, Quote, Word

NAME = "citation_locator"
QUOTES = 40
"""Of each document."""
OTHERS = 3
"""Documents that each quote must not be found in."""
MAX_PAGES = 60
_SEED = 20_261_128
_LIGATURES = {"fi": "\ufb01", "fl": "\ufb02", "ff": "\ufb00"}
_MARKS = str.maketrans({'"': "\u201c", "'": "\u2019", "-": "\u2013"})


def pages_of(path: Path) -> list[Page]:
    """The words of the first pages as the parser finds them."""
    with pymupdf.open(path) as document:
        return [
            Page(
                number,
                "",
                tuple(
                    Word(text, Box(x0, y0, x1, y1), block, line)
                    for x0, y0, x1, y1, text, block, line, _ in page.get_text("words")
                ),
            )
            for number, page in enumerate(document.pages(0, min(MAX_PAGES, document.page_count)), start=1)
        ]


def _ligatures(words: list[str], _: random.Random) -> str:
    text = " ".join(words)
    for letters, ligature in _LIGATURES.items():
        text = text.replace(letters, ligature)
    return text


def _hyphens(words: list[str], chance: random.Random) -> str:
    at = chance.randrange(len(words))
    half = len(words[at]) // 2
    # A number or a short word is not divided at the end of a line.
    if half >= 2 and words[at].isalpha():
        words[at] = f"{words[at][:half]}-\n{words[at][half:]}"
    return " ".join(words)


def _ellipsis(words: list[str], chance: random.Random) -> str:
    cut = chance.randrange(4, len(words) - 3)
    return " ".join([*words[:cut], "\u2026", *words[cut + 1 :]])


def _misread(words: list[str], chance: random.Random) -> str:
    at = max(range(len(words)), key=lambda index: (words[index].isalpha(), len(words[index])))
    word = words[at]
    if word.isalpha() and len(word) > 4:
        letter = chance.randrange(1, len(word) - 1)
        words[at] = word[:letter] + chance.choice("aeiou") + word[letter + 1 :]
    return " ".join(words)


DISTORTIONS: dict[str, Callable[[list[str], random.Random], str]] = {
    "none": lambda words, _: " ".join(words),
    "ligatures": _ligatures,
    "marks": lambda words, _: " ".join(words).translate(_MARKS),
    "case": lambda words, _: " ".join(words).upper(),
    "spaces": lambda words, _: "\n".join(words).replace("\n", "  ", 3),
    "hyphens": _hyphens,
    "ellipsis": _ellipsis,
    "misread": _misread,
}


def quotes_of(pages: list[Page], chance: random.Random) -> list[tuple[str, str, Quote]]:
    """Name of the distortion, the folded true words, and the quote."""
    # Pages of pictures, and words that are no words (rules, dots of a table of contents), are quoted by nobody.
    able = [page for page in pages if len(page.words) >= 60]
    quotes = []
    for number in range(QUOTES if able else 0):
        page = chance.choice(able)
        length = chance.randrange(8, 31)
        begin = chance.randrange(len(page.words) - length)
        words = [word.text for word in page.words[begin : begin + length]]
        if sum(bool(re.search(r"\w", word)) for word in words) < length * 3 // 4:
            continue
        name = list(DISTORTIONS)[number % len(DISTORTIONS)]
        quotes.append((name, fold("".join(words)), Quote(DISTORTIONS[name](list(words), chance), page.number)))
    return quotes


def measure(folder: Path) -> None:
    chance = random.Random(_SEED)
    documents = [pages_of(path) for path in sorted(folder.glob("*.pdf"))]
    texts = [[fold("".join(word.text for word in page.words)) for page in pages] for pages in documents]
    locators = [Locator(pages) for pages in documents]
    asked = dict.fromkeys(DISTORTIONS, 0)
    missed = dict.fromkeys(DISTORTIONS, 0)
    foreign = false = 0
    for index, pages in enumerate(documents):
        for name, true, quote in quotes_of(pages, chance):
            asked[name] += 1
            found = locators[index].locate(quote)
            right = found is not None and (found.page == quote.page or true in texts[index][found.page - 1])
            missed[name] += not right
            for step in range(1, OTHERS + 1):
                other = (index + step) % len(documents)
                if any(true in text for text in texts[other]):
                    continue
                foreign += 1
                false += locators[other].locate(quote) is not None
    total = sum(asked.values())
    detail = {"documents": len(documents), "quotes": total, "missed": {name: n for name, n in missed.items() if n}}
    report(f"{NAME}_found", ratio=1 - sum(missed.values()) / total, goal=0.99, better="higher", detail=detail)
    detail = {"foreign_quotes": foreign, "found": false}
    report(f"{NAME}_false", ratio=false / foreign, goal=0.001, better="lower", detail=detail)


if __name__ == "__main__":
    corpus = Path(os.environ.get("PAGEMESH_CORPUS", "../shared/corpus")) / "clean"
    if corpus.is_dir():
        measure(corpus)
    else:
        skip(NAME, f"no folder {corpus}; PAGEMESH_CORPUS names the corpus")
