"""Answers to questions, and what is told while one comes into being."""

from dataclasses import dataclass, field

from services.summarizer.domain.events import TextDelta
from services.summarizer.domain.personal_kinds import Counts
from services.summarizer.domain.ports_questions import PageAt
from services.summarizer.domain.values import Box, Consumption


@dataclass(frozen=True, slots=True)
class Cited:
    """Words that do stand on a page, with one box for each line they touch."""

    at: PageAt
    quote: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of an answer; grounded where at least one of its quotes was found."""

    text: str
    citations: tuple[Cited, ...]

    @property
    def grounded(self) -> bool:
        """Whether anything on a page supports it."""
        return bool(self.citations)


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """An answer. Without `found` the text says so, and statements are what a model said all the same."""

    found: bool
    text: str
    statements: tuple[Statement, ...]
    passages: tuple[PageAt, ...]
    model: str
    extractive: bool
    cached: bool
    failed_pages: tuple[PageAt, ...]
    consumption: Consumption
    degraded_from: str = ""
    """The model that was asked for, where it could not answer and another one did."""
    anonymised: Counts = field(default_factory=dict)
    """Values that were replaced before text left, by kind."""

    @property
    def grounded_share(self) -> float:
        """Share of grounded statements, 0 to 1; 0 where there are none."""
        if not self.statements:
            return 0.0
        return sum(statement.grounded for statement in self.statements) / len(self.statements)


@dataclass(frozen=True, slots=True)
class Looked:
    """How far the work is; `passages` is 0 while pages are being looked for."""

    pages_read: int
    passages: int


@dataclass(frozen=True, slots=True)
class StatementReady:
    """A statement whose citations were checked."""

    statement: Statement


@dataclass(frozen=True, slots=True)
class Answered:
    """The last event."""

    answer: CitedAnswer


AskEvent = Looked | TextDelta | StatementReady | Answered
