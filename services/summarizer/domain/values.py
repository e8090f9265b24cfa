"""What the summarizer speaks of: pages, quotes, sentences, requests and what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.summarizer.domain.found_field import FoundField
from services.summarizer.domain.personal_kinds import Counts, Kinds


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in points, origin top left of the page as shown."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Word:
    """A word as the parser found it; `block` and `line` count from 0."""

    text: str
    box: Box
    block: int
    line: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page as it is seen; `number` counts from 1. Words are in the parser's order. `hidden_words` nobody sees: they
    are left out. A `scanned` page has no text of its own: what there is of it was read from its picture. Where a model
    read that (scans.py), text and words are the model's, without boxes, and `parsed` are the parser's."""

    number: int
    text: str
    words: tuple[Word, ...]
    hidden_words: int = 0
    scanned: bool = False
    parsed: tuple[Word, ...] | None = None


class Length(Enum):
    """Sentences that a summary should have."""

    SHORT = 3
    MEDIUM = 7
    LONG = 15


class Style(Enum):
    """How a summary is written."""

    PARAGRAPH = "paragraph"
    BULLETS = "bullets"


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller wants. Empty `language` and `focus` mean the document's own; `model`:
    `{provider}/{model}`, and so `ocr_model`, who reads scanned pages: empty for nobody once it is resolved. Empty
    `audience`, who will read it, means nobody in particular. `anonymise` is what to replace; None where the
    caller does not say.
    """

    length: Length
    style: Style
    language: str
    focus: str
    model: str
    audience: str = ""
    ocr_model: str = ""
    anonymise: Kinds | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of pages, or a part of one, that is given to a model in one call.

    `spans` tell which part of `text` stands on which page: (start, end, page number), in order, without gaps.
    """

    index: int
    text: str
    spans: tuple[tuple[int, int, int], ...]

    @property
    def pages(self) -> tuple[int, ...]:
        """Page numbers, ascending, each once."""
        return tuple(sorted({page for _, _, page in self.spans}))


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence as a model wrote it, with the words it says it took it from. Nothing of it is checked."""

    text: str
    quotes: tuple["Quote", ...]


@dataclass(frozen=True, slots=True)
class Quote:
    """Words that a model says stand on a page; `page` is its hint, 0 where it gave none."""

    text: str
    page: int


@dataclass(frozen=True, slots=True)
class Citation:
    """Words that do stand on a page, with one box for each line they touch. With `by_model` they stand there as a model
    read its picture, and have boxes only where the parser read the same."""

    page: int
    quote: str
    boxes: tuple[Box, ...]
    by_model: bool = False


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the answer; grounded where at least one of its quotes was found."""

    text: str
    citations: tuple[Citation, ...]

    @property
    def grounded(self) -> bool:
        """Whether anything on a page supports it."""
        return bool(self.citations)


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of one call; or the pages of one to a model that is priced by page, which has no tokens then."""

    input_tokens: int
    output_tokens: int
    pages: int = 0

    @property
    def sent(self) -> int:
        """What the ledger counts as sent: pages take the place of tokens (ADR 31)."""
        return self.input_tokens + self.pages


class Stage(Enum):
    """What a call is for: the operation in its usage record."""

    MAP = "summarize.map"
    REDUCE = "summarize.reduce"
    ASK = "ask"
    EMBED = "embed"
    EMBED_QUERY = "embed.query"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One call to a provider. `chunk` is set for MAP, `claims` for REDUCE: claims of the parts, in order. ASK has a
    `question`, and a chunk whose pages are the passages that may answer it. EMBED and EMBED_QUERY have `texts`."""

    stage: Stage
    options: Options
    model: str
    max_sentences: int
    chunk: Chunk | None = None
    claims: tuple[Claim, ...] = ()
    question: str = ""
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider said to one prompt: claims to some, fields to others (fields_values.py), the text of a page to a
    picture of it (scans.py), and to texts a vector for each: numbers of half precision, little-endian."""

    claims: tuple[Claim, ...]
    tokens: TokenCount
    fields: tuple[FoundField, ...] = ()
    text: str = ""
    vectors: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Money:
    """Integer micro-units."""

    currency: str
    micros: int


@dataclass(frozen=True, slots=True)
class Consumption:
    """What one answer used; `settled` is false while the ledger has not acknowledged every call."""

    tokens: TokenCount
    provider_calls: int
    cost: Money
    settled: bool
    usage_event_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HiddenText:
    """Words that nobody sees, which were left out, and the pages that carry them."""

    pages: int = 0
    words: int = 0


NOTHING_HIDDEN = HiddenText()


@dataclass(frozen=True, slots=True)
class ScanReading:
    """What a model made of the pictures of scanned pages: `pages` it read; `failed` it could not, so that the parser's
    own reading stands for them."""

    model: str = ""
    pages: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()


NO_SCANS = ScanReading()


@dataclass(frozen=True, slots=True)
class Summary:
    """A cited summary of one document."""

    document: str
    text: str
    sentences: tuple[Sentence, ...]
    model: str
    extractive: bool
    cached: bool
    failed_pages: tuple[int, ...]
    consumption: Consumption
    degraded_from: str = ""
    """The model that was asked for, where it could not answer and another one did."""
    hidden: HiddenText = NOTHING_HIDDEN
    suspicious_passages: int = 0
    """Passages that speak to a model; no sentence rests on them."""
    scans: ScanReading = NO_SCANS
    anonymised: Counts = field(default_factory=dict)
    """Values that were replaced before text left, by kind."""

    @property
    def grounded_share(self) -> float:
        """Share of grounded sentences, 0 to 1; 0 for an empty summary."""
        if not self.sentences:
            return 0.0
        return sum(s.grounded for s in self.sentences) / len(self.sentences)


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """What is told to the ledger of one call; ids are UUIDs, `occurred_at_s` is Unix time."""

    event_id: str
    model: str
    tokens: TokenCount
    operation: str
    document: str
    request_id: str
    occurred_at_s: float
    job: str = ""
    """The job that the call was made for, `jobs/{id}`; empty where there is none."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom something is done. `tenant` is the bare id, `actor` like `apiKeys/{id}`; `project` may be
    empty. `job`, like `jobs/{id}`, is empty where somebody waits for the answer. `trace` is the trace that the work
    belongs to, as a W3C traceparent; empty where there is none. Of a tenant's calls to a model those of the smallest
    `rank` go first: 0 is that of calls that somebody waits for, and of urgent jobs.
    """

    tenant: str
    actor: str
    project: str
    scopes: frozenset[str]
    request_id: str
    job: str = ""
    trace: str = field(default="", compare=False)
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the ledger must hear of one call: its usage, or with `event` None that it was never sent."""

    hold_id: str
    caller: Caller
    event: UsageEvent | None
