"""Compares a quote with a page word by word, where the folded texts differ: a misread letter, a word left out, a
footnote mark or a line number in between.

The cost of an edit says how likely a true quote has it, and the work is bounded by the quote's length alone. Edits of
numbers and of negations have no cost: they are not allowed, because they make another statement of it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from services.summarizer.domain.folding import ends_hyphenated, fold, is_spaceless
from services.summarizer.domain.language import NEGATIONS

MAX_TOKENS = 400
"""Longest quote that is aligned."""

_MIN_CHARS = 12
_MIN_TOKENS = 3
# A quote this long may have one whole edit; a shorter one may have one slip of the pen.
_EDIT_EVERY_TOKENS = 7
_MAX_COST = 8.0
_SLIP = 0.5
_EDIT = 1.0
_MAX_POSITIONS = 32
_MAX_DIAGONALS = 4


@dataclass(frozen=True, slots=True)
class Token:
    """A folded word, or one character of a script without spaces, and the words of the page that it stands on."""

    text: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Alignment:
    """Tokens of the page from `first` to `last`, both included, and how far the quote is from them."""

    first: int
    last: int
    cost: float


def tokens_of(words: Sequence[str]) -> list[Token]:
    """Words as they are compared: folded, those that go on in the next line joined, mere punctuation left out."""
    tokens: list[Token] = []
    index = 0
    while index < len(words):
        first, text = index, fold(words[index])
        if ends_hyphenated(words[index]) and index + 1 < len(words) and words[index + 1][:1].islower():
            index += 1
            text += fold(words[index])
        if text and is_spaceless(text[0]):
            tokens.extend(Token(char, first, index) for char in text)
        elif text:
            tokens.append(Token(text, first, index))
        index += 1
    return tokens


def budget_of(quote: Sequence[Token]) -> float | None:
    """Highest cost at which the quote still counts as found, or None for one that is too short or too long."""
    if not _MIN_TOKENS <= len(quote) <= MAX_TOKENS or sum(len(t.text) for t in quote) < _MIN_CHARS:
        return None
    return min(_MAX_COST, max(_SLIP, float(len(quote) // _EDIT_EVERY_TOKENS)))


def align(quote: Sequence[Token], page: Sequence[Token]) -> Alignment | None:
    """The best place for the quote on the page, or None where no place is good enough."""
    budget = budget_of(quote)
    if budget is None:
        return None
    slack = int(budget / _SLIP) + 1
    best: Alignment | None = None
    for diagonal in _diagonals(quote, page):
        found = _align_near(quote, page, diagonal, slack)
        if found is not None and found.cost <= budget and (best is None or found.cost < best.cost):
            best = found
    return best


def _diagonals(quote: Sequence[Token], page: Sequence[Token]) -> list[int]:
    """Where on the page the quote may begin: the places that most of its rarer words speak for."""
    positions: dict[str, list[int]] = {token.text: [] for token in quote}
    for position, token in enumerate(page):
        found = positions.get(token.text)
        if found is not None and len(found) < _MAX_POSITIONS:
            found.append(position)
    votes: Counter[int] = Counter()
    for offset, token in enumerate(quote):
        for position in positions[token.text]:
            votes[position - offset] += len(token.text)
    # A tie goes to the earlier place, so that the answer is the same on every run.
    ranked = sorted(votes.items(), key=lambda item: (-item[1], item[0]))
    return [diagonal for diagonal, _ in ranked[:_MAX_DIAGONALS]]


def _align_near(quote: Sequence[Token], page: Sequence[Token], diagonal: int, slack: int) -> Alignment | None:
    """Edit distance in a band of `slack` tokens about the diagonal; what stands before and after on the page is free.

    A cell holds the cost and where on the page its path began.
    """
    row = {j: (0.0, j) for j in range(max(0, diagonal - slack), min(len(page), diagonal + slack) + 1)}
    for i, wanted in enumerate(quote, start=1):
        low, high = max(0, i + diagonal - slack), min(len(page), i + diagonal + slack)
        skip_cost = _skip_quote_cost(wanted)
        next_row: dict[int, tuple[float, int]] = {}
        for j in range(low, high + 1):
            options = [(inf, j)]
            if j in row:
                options.append((row[j][0] + skip_cost, row[j][1]))
            if j - 1 in row:
                options.append((row[j - 1][0] + _pair_cost(wanted.text, page[j - 1].text), row[j - 1][1]))
            if j - 1 in next_row:
                before = next_row[j - 1]
                options.append((before[0] + _skip_page_cost(page[j - 1]), before[1]))
            next_row[j] = min(options)
        row = next_row
    best = min(((cost, end, start) for end, (cost, start) in row.items() if end > start), default=None)
    if best is None or best[0] == inf:
        return None
    return Alignment(first=best[2], last=best[1] - 1, cost=best[0])


def _pair_cost(wanted: str, found: str) -> float:
    if wanted == found:
        return 0.0
    is_marked = wanted.isalpha() and found.rstrip("0123456789") == wanted
    return _SLIP if is_marked or _is_slip(wanted, found) else inf


def _skip_quote_cost(token: Token) -> float:
    if token.text in NEGATIONS or any(c.isdigit() for c in token.text):
        return inf
    return _EDIT


def _skip_page_cost(token: Token) -> float:
    if token.text in NEGATIONS:
        return inf
    # Footnote marks and line numbers stand between the words of a true quote.
    return _SLIP if token.text.isdigit() or len(token.text) == 1 else _EDIT


def _is_slip(a: str, b: str) -> bool:
    """Whether the two are one word, misread or mistyped: same first letter, one letter off, two in long words."""
    if min(len(a), len(b)) < 4 or a[0] != b[0] or abs(len(a) - len(b)) > 2:
        return False
    if any(c.isdigit() for c in a) or any(c.isdigit() for c in b):
        return False
    allowed = 1 if min(len(a), len(b)) < 8 else 2
    return _letters_apart(a, b, allowed) <= allowed


def _letters_apart(a: str, b: str, allowed: int) -> int:
    """Letters inserted, dropped, changed or exchanged with their neighbour; stops when `allowed` is passed."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        current = [i]
        for j, y in enumerate(b, start=1):
            cost = min(row[j] + 1, current[j - 1] + 1, row[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
        if min(current) > allowed:
            return allowed + 1
        before, row = row, current
    return row[-1]
