"""The use case: what a schema describes, found in a document, checked, and supported by its words."""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.events import Progress
from services.summarizer.domain.failover import Failover
from services.summarizer.domain.field_maker import FieldMaker, FieldsJob
from services.summarizer.domain.fields_values import Extraction
from services.summarizer.domain.json_schema import CheckedSchema, check
from services.summarizer.domain.map_reduce import Job
from services.summarizer.domain.models import Model, Models
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.personal_kinds import REPLACING_NOTHING, Kinds, Policy
from services.summarizer.domain.ports import Deadline, PageSource
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.savings import Savings, free_event
from services.summarizer.domain.schema_book import SchemaBook
from services.summarizer.domain.single_flight import Emit, SingleFlight
from services.summarizer.domain.values import Caller, Consumption, Length, Money, Options, Style, TokenCount

FieldsFlightKey = tuple[str, str, str, str, str, str, tuple[str, ...], str, Hashable, Kinds, PageRange]
FieldsFlights = SingleFlight[FieldsFlightKey, Progress | Extraction]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request looks for: an inline schema, or the name of a stored one."""

    schema: Mapping[str, object] | None = None
    stored: str = ""


class ExtractFields:
    """Answers out of a run that is under way, or by a new run. What was paid for is never paid again."""

    def __init__(
        self,
        *,
        models: Models,
        pages: PageSource,
        schemas: SchemaBook,
        flights: FieldsFlights,
        maker: FieldMaker,
        keeper: Keeper,
        savings: Savings,
        new_id: Callable[[], str],
        now_s: Callable[[], float],
        failed_over: Callable[[Model, Model, str], None],
        policy: Policy = REPLACING_NOTHING,
    ) -> None:
        self._policy = policy
        self._models = models
        self._pages = pages
        self._schemas = schemas
        self._flights = flights
        self._maker = maker
        self._keeper = keeper
        self._savings = savings
        self._new_id = new_id
        self._now_s = now_s
        self._failed_over = failed_over

    async def __call__(
        self,
        caller: Caller,
        document: str,
        wanted: Wanted,
        *,
        model: str = "",
        ocr_model: str = "",
        fallbacks: Sequence[str] = (),
        anonymise: Kinds | None = None,
        within: PageRange = ALL_PAGES,
        purse: Purse | None = None,
        deadline: float | None = None,
        told: Callable[[Progress], None] | None = None,
    ) -> Extraction:
        """The fields. `anonymise` is as in Options, `within` the pages that are looked at, `purse` bounds what is
        spent. `deadline`, in the event loop's time, is until when the caller waits; `told` hears how far it is.

        Raises InvalidArgument (unknown model, a schema that cannot be used), PermissionDenied (a model that the
        tenant does not allow), NotFound (document or schema), OutOfRange, FailedPrecondition (no text, too much of it,
        MAX_COST_EXCEEDED), ResourceExhausted (budget, rate), Unavailable, DeadlineExceeded.
        """
        models = await self._models.lineup(caller.tenant, model, fallbacks)
        ocr = await self._models.reader(caller.tenant, ocr_model)
        name, schema = await schema_of(self._schemas, caller.tenant, wanted)
        await self._pages.exists(document)
        # Who pays, and how much, is part of the key, as for summaries.
        payer = (caller.tenant, caller.actor, caller.project)
        bound, read_by = None if purse is None else purse.key, "" if ocr is None else ocr.name
        kinds = self._policy.kinds(anonymise)
        key = (*payer, document, schema.digest, name, tuple(one.name for one in models), read_by, bound, kinds, within)
        asked = fields_job(caller, document, models[0], kinds, within)
        job = FieldsJob(replace(asked, ocr=ocr, purse=purse), schema, name)
        seat = self._flights.join(key, lambda emit, latest: self._run(job, models, emit, latest), deadline=deadline)
        with seat:
            async for event in seat:
                if isinstance(event, Progress):
                    if told is not None:
                        told(event)
                    continue
                if seat.leads:
                    return event
                self._record_saving(caller, event)
                return replace(event, cached=True, consumption=_nothing(event.consumption.cost.currency))
        raise AssertionError("a run ended without an answer")

    async def _run(
        self, job: FieldsJob, models: Sequence[Model], emit: Emit[Progress | Extraction], deadline: Deadline
    ) -> None:
        failover = Failover[Extraction, Progress | Extraction](
            lambda asked, told, bill: self._maker.make(replace(job, job=asked), deadline, bill, told),
            observe=self._failed_over,
        )
        async with self._keeper.working_on(job.job) as held:
            emit(await failover(held, models, emit))

    def _record_saving(self, caller: Caller, extraction: Extraction) -> None:
        event = free_event(
            event_id=self._new_id(),
            model=extraction.model,
            document=extraction.document,
            caller=caller,
            now_s=self._now_s(),
            source="shared",
            saved=extraction.consumption.cost,
            operation="fields",
        )
        self._savings.add(caller, event)


async def schema_of(schemas: SchemaBook, tenant: str, wanted: Wanted, *, at: str = "") -> tuple[str, CheckedSchema]:
    """The full name of its version where it is stored, and the schema; `at` is where the request says it. Raises
    InvalidArgument SCHEMA_INVALID or SCHEMA_TOO_LARGE, NotFound SCHEMA_NOT_FOUND."""
    if wanted.schema is not None:
        return "", await asyncio.to_thread(check, wanted.schema, field=f"{at}json_schema")
    stored = await schemas.get(tenant, wanted.stored)
    return stored.name, await asyncio.to_thread(check, stored.content, field=f"{at}schema")


def fields_job(caller: Caller, document: str, model: Model, kinds: Kinds, within: PageRange) -> Job:
    """What a model is asked for; without a purse, and nobody reads its scans."""
    # Options of summaries say nothing to fields but these two.
    options = Options(Length.SHORT, Style.PARAGRAPH, "", "", model.name, anonymise=kinds)
    return Job(caller, document, options, model, pages=within)


def _nothing(currency: str) -> Consumption:
    return Consumption(TokenCount(0, 0), provider_calls=0, cost=Money(currency, 0), settled=True, usage_event_ids=())
