"""Turns what a model claims into sentences whose citations were found on the pages."""

import functools
from collections.abc import Iterable, Iterator, Sequence

from services.summarizer.domain.citations import Locator
from services.summarizer.domain.folding import fold
from services.summarizer.domain.plain_output import plain
from services.summarizer.domain.values import Citation, Claim, Quote, Sentence, Style

# The contract's bounds of Summary.text, Summary.sentences, SummarySentence.text and SummarySentence.citations.
MAX_TEXT_CHARS = 200_000
MAX_SENTENCES = 200
MAX_SENTENCE_CHARS = 8_000
MAX_CITATIONS = 20


def ground(claims: Iterable[Claim], locator: Locator) -> Iterator[Sentence]:
    """A sentence for each claim that says something, with those of its quotes that stand on a page.

    The text is made plain (see plain_output.py). What only a passage that speaks to a model says has no support. A
    quote that is found nowhere leaves no trace: the sentence has fewer citations, and none makes it ungrounded.
    """
    said = [claim for claim in claims if claim.text.strip()]
    for claim in said[:MAX_SENTENCES]:
        citations = () if locator.is_suspect(claim.text) else _citations(claim.quotes, locator)
        quoted = [fold_all(citation.quote) for citation in citations]
        # An address stays where the words that support the sentence have it.
        text = plain(claim.text, functools.partial(_stands_in, quoted))
        if any(char.isalnum() for char in text):
            yield Sentence(" ".join(text.split())[:MAX_SENTENCE_CHARS], citations)


def _stands_in(quoted: Sequence[str], address: str) -> bool:
    return any(fold_all(address) in each for each in quoted)


def fold_all(text: str) -> str:
    """The text without spaces and what else may differ (see folding.py)."""
    return "".join(fold(word) for word in text.split())


def text_of(sentences: Iterable[Sentence], style: Style) -> str:
    """The sentences as one text: running, or one item a line."""
    if style is Style.BULLETS:
        text = "\n".join(f"- {sentence.text}" for sentence in sentences)
    else:
        text = " ".join(sentence.text for sentence in sentences)
    return text[:MAX_TEXT_CHARS]


def _citations(quotes: Iterable[Quote], locator: Locator) -> tuple[Citation, ...]:
    found: dict[tuple[int, str], Citation] = {}
    for quote in quotes:
        citation = locator.locate(quote)
        if citation is not None:
            found.setdefault((citation.page, citation.quote), citation)
        if len(found) == MAX_CITATIONS:
            break
    return tuple(found.values())
