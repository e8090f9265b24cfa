"""What is told of a summary while it comes into being."""

from dataclasses import dataclass

from services.summarizer.domain.values import Sentence, Summary


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is; `chunk_count` is 0 while the pages are being read."""

    pages_read: int
    page_count: int
    chunks_done: int
    chunk_count: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that the model just wrote; nothing of it is checked."""

    text: str


@dataclass(frozen=True, slots=True)
class SentenceReady:
    """A sentence whose citations were checked."""

    sentence: Sentence


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event."""

    summary: Summary


Event = Progress | TextDelta | SentenceReady | Finished
