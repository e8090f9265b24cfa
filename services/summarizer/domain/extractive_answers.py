"""Answers out of the documents' own sentences: nothing is written, so nothing can be made up.

The sentences, and the lines that are none, such as those of forms and tables, are ranked by how well they match the
question (matching.py). One that does not hold THRESHOLD of the question's weight has not to do with it, and where none
does there is no answer.
"""

from collections.abc import Iterator
from dataclasses import replace

from services.summarizer.domain.layout import lines
from services.summarizer.domain.matching import matches
from services.summarizer.domain.questions import wanted
from services.summarizer.domain.sentences import MAX_CHARS, prose
from services.summarizer.domain.values import Chunk, Claim, Prompt, Quote

THRESHOLD = 0.5
"""Share of the question's weight (words by their rarity) that a sentence must hold. A word of the question that no page
has weighs most: what is not spoken of at all cannot be answered."""
MAX_SENTENCES = 3
_NEAR = 0.6
"""Further sentences score at least so much of the best one's score."""
_LINE_WEIGHT = 0.7
"""A line may be a part of a sentence that is there as a whole."""
_MAX_UNITS = 20_000
_MIN_LINE_CHARS = 8


def answer(prompt: Prompt) -> tuple[Claim, ...]:
    """The sentences that answer best, best first, if any. Raises ValueError for a prompt without pages."""
    if prompt.chunk is None:
        raise ValueError("an ASK prompt needs a chunk")
    weighed = list(_units(prompt.chunk))
    found = matches(wanted(prompt.question).terms, [claim.text for claim, _ in weighed])
    able = [i for i in range(len(weighed)) if found[i].score > 0 and found[i].coverage >= THRESHOLD]
    scores = {i: found[i].score * found[i].coverage * weighed[i][1] for i in able}
    able.sort(key=lambda i: (-scores[i], i))
    best = [i for i in able if scores[i] >= _NEAR * scores[able[0]]]
    return tuple(weighed[i][0] for i in best[: min(MAX_SENTENCES, prompt.max_sentences)])


def _units(chunk: Chunk) -> Iterator[tuple[Claim, float]]:
    """Sentences and lines with their weight, each once. Passages are taken one by one: what follows on one may be
    another document."""
    told: set[str] = set()
    for start, end, page in chunk.spans:
        text = chunk.text[start:end]
        part = replace(chunk, text=text, spans=((0, len(text), page),))
        sentences = prose(part)
        running = " ".join(sentence.text for sentence in sentences)
        for sentence in sentences:
            if sentence.text not in told:
                told.add(sentence.text)
                yield Claim(sentence.text, sentence.quotes), 1.0
        for line, number in lines(part):
            if len(told) == _MAX_UNITS:
                return
            if _MIN_LINE_CHARS <= len(line) <= MAX_CHARS and line not in told and line not in running:
                told.add(line)
                yield Claim(line, (Quote(line, number),)), _LINE_WEIGHT
