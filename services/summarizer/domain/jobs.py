"""What the summarizer speaks of when it speaks of jobs: work on a document that goes on when nobody waits."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum

from services.summarizer.domain.answer_values import CitedAnswer
from services.summarizer.domain.events import Progress
from services.summarizer.domain.fields_values import Extraction
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.personal_kinds import Kinds
from services.summarizer.domain.values import Caller, Money, Options, Summary


class JobState(Enum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Priority(IntEnum):
    """Which jobs go first; the smaller number does."""

    URGENT = 0
    NORMAL = 1
    BATCH = 2


class EventKind(Enum):
    """What happened to a job."""

    QUEUED = "QUEUED"
    STARTED = "STARTED"
    PROGRESS = "PROGRESS"
    POSTPONED = "POSTPONED"
    HANDED_BACK = "HANDED_BACK"
    WORKER_LOST = "WORKER_LOST"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class SummarizeWork:
    """Summarize the document. `fallbacks` as in StreamSummarize."""

    options: Options
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExtractWork:
    """Read every page."""


@dataclass(frozen=True, slots=True)
class FieldsWork:
    """Look for what a schema describes: `schema` is one as canonical JSON, or else `stored` the name of one with its
    version; before the job is accepted it may be without. `fallbacks` as in ExtractFields, `pages` are looked at."""

    schema: str = ""
    stored: str = ""
    model: str = ""
    fallbacks: tuple[str, ...] = ()
    ocr_model: str = ""
    anonymise: Kinds | None = None
    pages: PageRange = ALL_PAGES


@dataclass(frozen=True, slots=True)
class AskWork:
    """Answer a question from the document, from `max_passages` of its pages at most. `fallbacks` as in StreamAsk."""

    question: str
    max_passages: int
    language: str = ""
    model: str = ""
    fallbacks: tuple[str, ...] = ()
    anonymise: Kinds | None = None


Work = SummarizeWork | ExtractWork | FieldsWork | AskWork


@dataclass(frozen=True, slots=True)
class Extracted:
    """What reading a whole document came to. `failed_pages` are numbers."""

    page_count: int
    pages_read: int
    failed_pages: tuple[int, ...]
    words: int


Result = Summary | Extracted | Extraction | CitedAnswer


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt failed: `kind` is the name of one of the runtime's errors, the rest what it says."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks for. `documents` each once; more than one make a batch, and so does `as_batch`.

    `request_id` is the caller's own, empty for none. `schedule_time` None means now. `asked` is the work as the caller
    wrote it, where `work` says more: which version of a schema it is.
    """

    caller: Caller
    documents: tuple[str, ...]
    work: Work
    priority: Priority
    max_attempts: int
    schedule_time: datetime | None = None
    request_id: str = ""
    as_batch: bool = False
    asked: Work | None = None
    max_cost: Money | None = None
    """What each job may spend over all of its attempts."""


NO_PROGRESS = Progress(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. Ids are 32 hexadecimal digits that grow with time; `batch` is an id or empty."""

    tenant: str
    job_id: str
    document: str
    work: Work
    priority: Priority
    state: JobState
    batch: str
    actor: str
    attempts: int
    max_attempts: int
    last_sequence: int
    create_time: datetime
    schedule_time: datetime
    progress: Progress = NO_PROGRESS
    start_time: datetime | None = None
    end_time: datetime | None = None
    expire_time: datetime | None = None
    fault: Fault | None = None
    result: Result | None = None
    max_cost: Money | None = None
    spent_micros: int = 0
    """What its calls cost; one whose cost is not known counts with the most that it can have cost."""

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"jobs/{self.job_id}"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event. `sequence` counts within the job, `batch_sequence` within its batch: 0 where it is none of its."""

    job_id: str
    sequence: int
    batch_sequence: int
    kind: EventKind
    state: JobState
    attempt: int
    create_time: datetime
    progress: Progress = NO_PROGRESS
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that were made together, counted by state."""

    batch_id: str
    last_sequence: int
    create_time: datetime
    counts: dict[JobState, int] = field(default_factory=dict)
    spent_micros: int = 0
    """What its jobs spent, together."""

    @property
    def ended(self) -> bool:
        """Whether all of its jobs have."""
        return all(state.ended for state, count in self.counts.items() if count)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs to list; empty and None mean all."""

    state: JobState | None = None
    batch: str = ""
    document: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that one worker may work on, until its lease ends.

    `attempt` is the fence: it grows with each claim of the job, and whoever holds an older one can change nothing.
    `tries` counts the attempts since the job was queued, this one included.
    """

    caller: Caller
    job_id: str
    document: str
    work: Work
    priority: Priority
    attempt: int
    tries: int
    max_attempts: int
    max_cost: Money | None = None
    spent_micros: int = 0
    """What earlier attempts spent, and may have spent."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The queue of one priority: how many wait, how many run, and since when the oldest one that could run waits."""

    priority: Priority
    queued: int
    running: int
    oldest_age_s: float


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a clean-up removed."""

    jobs: int = 0
    events: int = 0
    batches: int = 0
