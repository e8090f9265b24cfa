"""Calls that are made in thought only: what a model is expected to answer, in tokens, without asking it.

They stand in the place of PaidCalls, so that an estimate goes the same way as the run: the same chunks, the same tree
of reductions, the same answers that were paid for before. What a chunk's answer says is not known; its sentences are
stood for by as many words of the chunk.

The rule for what a model that writes answers comes from what it is asked for (prompts.py): sentences of at most 40
words, each with one or two quotes of 5 to 30. A usual answer has as many sentences as it may, unless the text is too
short for them, with the middle of each range; a terse one half as many near the lower ends; the longest is where the
call is cut off. Words become tokens at the rate of the text that is answered about; a word of a script without spaces
is two characters. No more sentences are expected than the text has. A question is answered in a few
sentences, whatever it may: three are expected, and none where the documents do not hold the answer.
"""

import asyncio
import math
import re
from dataclasses import dataclass, replace
from enum import Enum

from services.summarizer.domain import prompts
from services.summarizer.domain.answers import MAX_TEXT_CHARS
from services.summarizer.domain.fields_values import FieldsStage, chat_prompt
from services.summarizer.domain.folding import is_spaceless
from services.summarizer.domain.models import Model
from services.summarizer.domain.paid_calls import OnText, Order, Paid
from services.summarizer.domain.prices import ModelPrice
from services.summarizer.domain.values import Answer, Claim, Length, Options, Prompt, Stage, Style, TokenCount


@dataclass(frozen=True, slots=True)
class _Words:
    """What a sentence of an answer is made of. `share` is that of the sentences that may be written, the time until an
    answer begins, and the one for the picture of a page, are in seconds, its speed in tokens a second. `answer` are the
    sentences of an answer to a question."""

    text: int
    quotes: float
    quote: int
    sources: float
    share: float
    begins_s: float
    speed: float
    scan_s: float
    answer: int


class Guess(Enum):
    """How much is expected of a model."""

    LOW = _Words(text=15, quotes=1.0, quote=10, sources=1.0, share=0.5, begins_s=0.3, speed=150.0, scan_s=1.0, answer=0)
    EXPECTED = _Words(
        text=26, quotes=1.5, quote=17, sources=2.0, share=1.0, begins_s=1.0, speed=60.0, scan_s=3.0, answer=3
    )
    HIGH = _Words(
        text=40, quotes=2.0, quote=30, sources=3.0, share=1.0, begins_s=5.0, speed=20.0, scan_s=10.0, answer=8
    )


_WORDS_PER_SENTENCE = 20
"""A text that ends few sentences, such as a list, can be told in one for every so many words."""
_ENDING = re.compile(r"[^\W\d_]{2,}[)\]\"'\u2019\u201d\u00bb]*[.!?]+(?=\s|$)|[\u3002\uff01\uff1f]")
"""Where a sentence ends: behind a word, not behind a number or an initial."""
_SPACELESS_CHARS = 2
"""Characters of a word in a script that is written without spaces."""
_WORDS_OF_CHOSEN = 25
"""Words of a sentence that is chosen, not written: longer ones say more and are chosen more often."""
# Tokens of the JSON around a sentence, each of its quotes and each of its sources; and around all of them.
_SENTENCE_JSON, _QUOTE_JSON, _SOURCE_JSON, _ANSWER_JSON = 13, 12, 2, 8
_LONGEST_TEXT, _LONGEST_QUOTE = 40, 30
"""Words that a sentence, and a quote, may have."""
_LEAST_RATE, _MOST_RATE = 1.0, 6.0
"""Bounds of tokens for a word: beyond them the text has no words that anybody would repeat."""
_MOST_SAMPLED = 4_000
"""Words of a text that are counted to learn its tokens for a word."""
_READING_S = 1.0
"""Longest a model that chooses takes for a chunk."""

UNREAD_PAGE = " ".join(["and so it stands written on the page."] * 50)
"""Stands for a page of which nobody has read a word yet: 400 words, as a printed page has."""

Counted = dict[bytes, "_Size"]
Seconds = dict[Stage | FieldsStage, list[float]]
"""How long each call would take, by what it is for."""


@dataclass(frozen=True, slots=True)
class _Size:
    """The most that a call can use, its words and those of one page, how many sentences they may be said in, and tokens
    for each of them."""

    most: TokenCount
    words: list[str]
    page: float
    sentences: int
    rate: float


class ExpectedCalls:
    """Calls (see paid_calls.py) that cost nothing and ask nobody. `counted` may be shared by several of them, so that
    no chunk is counted twice; `seconds` is how long each call would take, by stage."""

    def __init__(self, price: ModelPrice, guess: Guess, counted: Counted) -> None:
        self._price = price
        self.guess = guess
        self._counted = counted
        self.seconds: Seconds = {}

    async def make(self, order: Order, on_text: OnText | None = None) -> Paid:
        """What the call is expected to use. Nothing is told to `on_text`."""
        size = self._counted.get(order.key)
        if size is None:
            # In a thread: counting 16,000 tokens takes some 10 ms.
            size = await asyncio.to_thread(_size, order)
            if _asked(order).stage is Stage.MAP:
                self._counted[order.key] = size
        answer = self._answer(order, size)
        self._time(order, answer.tokens)
        return Paid(answer, "", self._price.of(answer.tokens), settled=True)

    def _answer(self, order: Order, size: _Size) -> Answer:
        words, most = self.guess.value, size.most
        abilities = order.model.abilities
        available = len(_asked(order).claims) or size.sentences
        sentences = max(1, int(min(_asked(order).max_sentences, available) * words.share))
        if _asked(order).stage is Stage.ASK:
            sentences = min(words.answer, _asked(order).max_sentences, available)
        if self.guess is Guess.HIGH:
            longest = min(prompts.TOKENS_PER_SENTENCE, most.output_tokens / _asked(order).max_sentences) / size.rate
            return Answer(_said(size.words, _asked(order).max_sentences, int(longest)), most)
        sent = expected_input(order, most)
        if not abilities.writes:
            output = sentences * _WORDS_OF_CHOSEN * size.rate
            claims = _said(size.words, sentences, _WORDS_OF_CHOSEN)
        else:
            output = sentences * _tokens_of_sentence(_asked(order).stage, words, size) + _ANSWER_JSON
            claims = _said(size.words, sentences, words.text)
        return Answer(claims, TokenCount(sent, min(round(output), most.output_tokens)))

    def _time(self, order: Order, tokens: TokenCount) -> None:
        self.seconds.setdefault(_asked(order).stage, []).append(seconds_of(self.guess, order, tokens))


class ExpectedScans:
    """The same for pictures of pages: what they hold is not known, and what they cost is."""

    def __init__(self, price: ModelPrice) -> None:
        self._price = price

    async def make(self, order: Order, on_text: OnText | None = None) -> Paid:
        """One page."""
        page = order.model.provider.count(order.prompt)
        return Paid(Answer((), page), "", self._price.of(page), settled=True)


def _asked(order: Order) -> Prompt:
    """A call for a summary or an answer; those for fields have guesses of their own (expected_fields.py)."""
    assert isinstance(order.prompt, Prompt)
    return order.prompt


def seconds_of(guess: Guess, order: Order, tokens: TokenCount) -> float:
    """How long the call would take."""
    words = guess.value
    if not order.model.abilities.writes:
        return min(_READING_S, words.begins_s / 10)
    return words.begins_s + tokens.output_tokens / words.speed


def expected_input(order: Order, most: TokenCount) -> int:
    """Tokens that are expected to be sent, without what is counted to be on the safe side."""
    abilities, chunk = order.model.abilities, chat_prompt(order.prompt).chunk
    pages = len(chunk.spans) if chunk is not None else 0
    excess = abilities.call_excess + pages * abilities.page_excess
    return round((most.input_tokens - excess) * abilities.counted_share)


def tokens_of_line(model: Model, text: str) -> float:
    """Tokens that are expected of the text alone, as one line."""
    options = Options(Length.SHORT, Style.PARAGRAPH, "", "", model.name)
    with_text = Prompt(Stage.REDUCE, options, model.short_name, 1, claims=(Claim(text, ()),))
    without = replace(with_text, claims=(Claim("", ()),))
    count = model.provider.count
    return (count(with_text).input_tokens - count(without).input_tokens) * model.abilities.counted_share


def _tokens_of_sentence(stage: Stage, words: _Words, size: _Size) -> float:
    text = _shortened(words.text, _LONGEST_TEXT, size.page) * size.rate
    if stage is not Stage.REDUCE:
        quote = _shortened(words.quote, _LONGEST_QUOTE, size.page) * size.rate
        return text + words.quotes * (quote + _QUOTE_JSON) + _SENTENCE_JSON
    return text + words.sources * _SOURCE_JSON + _SENTENCE_JSON


def _shortened(usual: float, longest: int, there: float) -> float:
    """Words of what is as long as usual on the average, where so many are there to take them from: lengths are thought
    to be spread evenly around the usual one, up to the longest."""
    shortest = max(1.0, 2 * usual - longest)
    if there >= longest:
        return usual
    if there <= shortest:
        return there
    above = (longest - there) / (longest - shortest)
    return above * there + (1 - above) * (shortest + there) / 2


def _said(words: list[str], sentences: int, length: int) -> tuple[Claim, ...]:
    """Claims of the right size, of words from all over the text."""
    step = max(1, len(words) // max(1, sentences))
    starts = [number * step % max(1, len(words)) for number in range(sentences)]
    return tuple(Claim(_run(words, start, length)[:MAX_TEXT_CHARS] or "-", ()) for start in starts)


def _run(words: list[str], start: int, length: int) -> str:
    """`length` words from `start` on, from the beginning again where the text ends."""
    run = words[start : start + length]
    while words and len(run) < length:
        run = run + words[: length - len(run)]
    return " ".join(run)


def _size(order: Order) -> _Size:
    prompt = _asked(order)
    most = order.model.provider.count(prompt)
    text = prompt.chunk.text if prompt.chunk is not None else " ".join(claim.text for claim in prompt.claims)
    words = text.split()
    sample = " ".join(words[:_MOST_SAMPLED])
    # As one line, for so answers repeat it: the breaks of lines are tokens too.
    tokens = tokens_of_line(order.model, sample)
    if _is_spaceless(sample):
        words = [word[at : at + _SPACELESS_CHARS] for word in words for at in range(0, len(word), _SPACELESS_CHARS)]
        # Runs of them are told without spaces, but a sample with a space between each two is not longer by many tokens.
        rate = tokens / max(1, math.ceil(sum(map(len, sample.split())) / _SPACELESS_CHARS))
    else:
        rate = tokens / max(1, min(len(words), _MOST_SAMPLED))
    sentences = max(1, len(_ENDING.findall(text)), len(words) // _WORDS_PER_SENTENCE)
    pages = len(prompt.chunk.spans) if prompt.chunk is not None else 1
    return _Size(most, words, len(words) / max(1, pages), sentences, min(max(rate, _LEAST_RATE), _MOST_RATE))


def _is_spaceless(text: str) -> bool:
    """Whether most of its letters are of scripts without spaces."""
    letters = [char for char in text if char.isalpha()]
    return sum(map(is_spaceless, letters)) * 2 > len(letters)
