"""Summaries out of the document's own sentences: nothing is written, so nothing can be made up.

The answer to MAP is the best sentences of a chunk, to REDUCE the best of all chunks' claims. Each claim quotes itself.
"""

from collections.abc import Sequence

from services.summarizer.domain.language import function_words, possible_languages, speaks
from services.summarizer.domain.layout import Section, lines
from services.summarizer.domain.lexrank import Candidate, choose
from services.summarizer.domain.sentences import MAX_CHARS, ProseSentence, is_prose, prose
from services.summarizer.domain.values import Chunk, Claim, Prompt, Quote, Stage

VERSION = "3"
"""Changes whenever other sentences would be chosen."""

MAX_CLAIM_CHARS = MAX_CHARS
"""Longest sentence that is chosen."""

# Measured by bench/bench_offline_summary.py; the optimum is flat. An abstract is a summary already.
_OPENING_SHARE = 0.2
_OPENING_WEIGHT = 6.0
_SECTION_WEIGHTS = {Section.ABSTRACT: 10.0, Section.CONCLUSION: 5.0}
_MAX_LINES = 2_000
_SAMPLE_CHARS = 20_000


def summarize(prompt: Prompt) -> tuple[Claim, ...]:
    """The chosen sentences in the document's order. A chunk in another language than the reader wants has no sentence
    to offer.

    Raises ValueError for a prompt without the part that its stage needs.
    """
    if prompt.stage is Stage.REDUCE:
        return _reduce(prompt)
    if prompt.chunk is None:
        raise ValueError("a MAP prompt needs a chunk")
    if prompt.options.language and not speaks(prompt.chunk.text, prompt.options.language):
        return ()
    return _map(prompt.chunk, prompt)


def _map(chunk: Chunk, prompt: Prompt) -> tuple[Claim, ...]:
    sentences = _distinct(prose(chunk))
    if not sentences:
        # Forms, slides and tables hold no sentence; their lines are better than nothing.
        return _by_lines(chunk, prompt)
    stop_words = function_words(possible_languages(chunk.text))
    opening = _OPENING_SHARE * len(sentences) if chunk.index == 0 else 0.0
    candidates = [
        Candidate(sentence.text, _weight(place, opening) + _SECTION_WEIGHTS.get(sentence.section, 0.0))
        for place, sentence in enumerate(sentences)
    ]
    chosen = choose(candidates, most=prompt.max_sentences, focus=prompt.options.focus, stop_words=stop_words)
    return tuple(Claim(sentences[i].text, sentences[i].quotes) for i in chosen)


def _reduce(prompt: Prompt) -> tuple[Claim, ...]:
    sample = " ".join(claim.text for claim in prompt.claims)[:_SAMPLE_CHARS]
    stop_words = function_words(possible_languages(sample))
    claims = [c for c in prompt.claims if is_prose(c.text, stop_words)] or list(prompt.claims)
    opening = _OPENING_SHARE * len(claims)
    candidates = [Candidate(claim.text, _weight(place, opening)) for place, claim in enumerate(claims)]
    chosen = choose(candidates, most=prompt.max_sentences, focus=prompt.options.focus, stop_words=stop_words)
    return tuple(claims[i] for i in chosen)


def _weight(place: int, opening: float) -> float:
    """A document says early what it is about: the weight falls from the first sentence to the end of the opening."""
    return 1.0 + (_OPENING_WEIGHT * max(0.0, 1.0 - place / opening) if opening else 0.0)


def _by_lines(chunk: Chunk, prompt: Prompt) -> tuple[Claim, ...]:
    texts: dict[str, int] = {}
    for text, page in lines(chunk):
        if len(texts) == _MAX_LINES:
            break
        if sum(char.isalpha() for char in text) >= 2:
            texts.setdefault(text[:MAX_CLAIM_CHARS], page)
    candidates = [Candidate(text) for text in texts]
    chosen = choose(candidates, most=prompt.max_sentences, focus=prompt.options.focus)
    pages = list(texts.items())
    return tuple(Claim(text, (Quote(text, page),)) for text, page in (pages[i] for i in chosen))


def _distinct(sentences: Sequence[ProseSentence]) -> list[ProseSentence]:
    first: dict[str, ProseSentence] = {}
    for sentence in sentences:
        first.setdefault(sentence.text.casefold(), sentence)
    return list(first.values())
