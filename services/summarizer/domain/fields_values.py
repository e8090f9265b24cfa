"""What the extraction of fields speaks of: what is looked for, what was found, and what supports it."""

from dataclasses import dataclass, field
from enum import Enum

from services.summarizer.domain.found_field import Scalar
from services.summarizer.domain.personal_kinds import Counts, Kinds
from services.summarizer.domain.pictures import PagePrompt
from services.summarizer.domain.values import NO_SCANS, Chunk, Citation, Consumption, Prompt, ScanReading

VERSION = "1"
"""Changes whenever the same request would be answered otherwise: the wording of prompts, how the offline provider
looks, the form of the answer."""

Path = tuple[str | int, ...]
"""Where a value stands: names of properties, and places in lists from 0."""
Template = tuple[str | None, ...]
"""The same for every item of a list: None stands for its place."""

LARGEST_INTEGER = 2**53 - 1
"""Whole numbers beyond it are not exact in every reader of JSON, nor in google.protobuf.Value."""


class FieldsStage(Enum):
    """What a call is for: the operation in its usage record."""

    EXTRACT = "fields.extract"
    REPAIR = "fields.repair"


@dataclass(frozen=True, slots=True)
class Target:
    """A single value that a schema describes. `kinds` are JSON types; empty where any will do."""

    template: Template
    kinds: frozenset[str]
    format: str = ""
    options: tuple[str, ...] = ()
    """The texts that it may be, where they are listed."""
    title: str = ""
    description: str = ""

    @property
    def in_list(self) -> bool:
        """Whether there may be several."""
        return None in self.template

    @property
    def name(self) -> str:
        """The name of its property, or of the list that it is an item of."""
        return next((part for part in reversed(self.template) if part is not None), "")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with a value of an earlier answer; `value` is the document's words, `problem` is ours."""

    pointer: str
    problem: str
    value: str


@dataclass(frozen=True, slots=True)
class FieldsPrompt:
    """One call to a provider. `schema` is canonical JSON; `complaints` are set for REPAIR."""

    stage: FieldsStage
    model: str
    schema: str
    targets: tuple[Target, ...]
    max_fields: int
    chunk: Chunk
    complaints: tuple[Complaint, ...] = ()
    anonymise: Kinds = ()
    """What was replaced by placeholders."""


ChatPrompt = Prompt | FieldsPrompt
"""Whatever a model that reads text may be asked."""
AnyPrompt = ChatPrompt | PagePrompt
"""Whatever a provider may be asked."""


def chat_prompt(prompt: AnyPrompt) -> ChatPrompt:
    """The prompt, which is one about text: models that read pictures are providers of their own."""
    assert not isinstance(prompt, PagePrompt), "this model reads text"
    return prompt


@dataclass(frozen=True, slots=True)
class OtherValue:
    """What the document says elsewhere for the same field."""

    value: Scalar
    citation: Citation


@dataclass(frozen=True, slots=True)
class FieldValue:
    """A value of the answer; `confidence` by the rule of field_support.py."""

    path: Path
    value: Scalar
    citation: Citation | None
    confidence: float
    others: tuple[OtherValue, ...] = ()

    @property
    def grounded(self) -> bool:
        """Whether words on a page say it."""
        return self.citation is not None


@dataclass(frozen=True, slots=True)
class Violation:
    """What a schema does not allow: where, by which keyword, why."""

    path: Path
    keyword: str
    message: str


@dataclass(frozen=True, slots=True)
class Extraction:
    """The fields of one document. `json` is made of `fields`; `schema` is empty for one that is not stored."""

    document: str
    schema: str
    schema_digest: str
    json: dict[str, object]
    fields: tuple[FieldValue, ...]
    violations: tuple[Violation, ...]
    missing: tuple[Path, ...]
    repaired: bool
    model: str
    cached: bool
    failed_pages: tuple[int, ...]
    consumption: Consumption
    degraded_from: str = ""
    scans: ScanReading = NO_SCANS
    repair_unaffordable: bool = False
    """It is not valid, and there was no room in the bound to ask about that once more."""
    anonymised: Counts = field(default_factory=dict)
    """Values that were replaced before text left, by kind."""

    @property
    def valid(self) -> bool:
        """Whether it satisfies the schema."""
        return not self.violations and not self.missing

    @property
    def grounded_share(self) -> float:
        """Share of the fields that are grounded, 0 to 1; 0 where there are none."""
        return sum(field.grounded for field in self.fields) / len(self.fields) if self.fields else 0.0


def pointer_of(path: Path) -> str:
    """The path as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def parts_of(pointer: str) -> list[str]:
    """The parts of a JSON pointer. Raises ValueError where it is none."""
    if pointer and not pointer.startswith("/"):
        raise ValueError("a JSON pointer begins with a slash")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
