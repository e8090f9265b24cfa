"""Makes one extraction: pages, parts, paid answers, one answer out of them, and one more try where it is not valid."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from services.runtime.errors import FailedPrecondition
from services.summarizer.domain.events import Progress
from services.summarizer.domain.field_merge import Context, json_of, merge, replaced
from services.summarizer.domain.fields_prompts import most_fields
from services.summarizer.domain.fields_values import (
    Complaint,
    Extraction,
    FieldsPrompt,
    FieldsStage,
    FieldValue,
    Path,
    Violation,
    pointer_of,
)
from services.summarizer.domain.json_schema import CheckedSchema
from services.summarizer.domain.keys import fields_key
from services.summarizer.domain.map_reduce import Bill, Job, MapReduce
from services.summarizer.domain.numbers_dates import customs_of
from services.summarizer.domain.personal_kinds import Counts
from services.summarizer.domain.ports import ActAs, Deadline
from services.summarizer.domain.purse import MAX_COST_EXCEEDED
from services.summarizer.domain.reading import EMPTY_CHUNK, MAX_CHUNK_TOKENS, Reading, builder_around
from services.summarizer.domain.scans import Scans
from services.summarizer.domain.sealed_prompts import hidden_schema, texts_of
from services.summarizer.domain.values import Answer, Chunk
from services.summarizer.domain.veil import Veil
from services.summarizer.domain.veiled import chunking_with, counts_of, restored_fields, untold, veil_for

LIST_CHUNK_TOKENS = 3_000
"""Largest part of a document where lists are looked for: a row of a table is ten times as long in the answer."""
MAX_COMPLAINTS = 50
"""Most violations that a model is asked about again."""


@dataclass(frozen=True, slots=True)
class FieldsJob:
    """A job, and the schema that it is about; `schema_name` is empty for one that is not stored."""

    job: Job
    schema: CheckedSchema
    schema_name: str


@dataclass(frozen=True, slots=True)
class _Checked:
    """Fields, and what they violate."""

    fields: tuple[FieldValue, ...]
    violations: tuple[Violation, ...]
    missing: tuple[Path, ...]


class FieldMaker:
    """The way from pages to checked fields."""

    def __init__(
        self, *, scans: Scans, map_reduce: MapReduce, act_as: ActAs, anonymised: Callable[[Counts], None] = untold
    ) -> None:
        """`anonymised` hears what was replaced, by kind."""
        self._anonymised = anonymised
        self._scans = scans
        self._map_reduce = map_reduce
        self._act_as = act_as

    async def make(
        self, asked: FieldsJob, deadline: Deadline, bill: Bill, told: Callable[[Progress], None]
    ) -> Extraction:
        """The extraction; `told` hears how far it is, `bill` is filled as calls are paid for.

        Raises what PageSource, Results, Books and Provider raise.
        """
        reading, veil = await self.read(asked, deadline, bill, told)
        made = await self.answer(asked, reading, veil, deadline=deadline, bill=bill, told=told)
        self._anonymised(made.anonymised)
        return made

    async def read(
        self, asked: FieldsJob, deadline: Deadline, bill: Bill, told: Callable[[Progress], None]
    ) -> tuple[Reading, Veil | None]:
        """The first half: the document in parts, and what hides personal data in them."""
        job = asked.job
        # Reading has one deadline that cannot move; see SummaryMaker.
        with self._act_as(job.caller):
            lists = any(target.in_list for target in asked.schema.targets)
            largest = LIST_CHUNK_TOKENS if lists else MAX_CHUNK_TOKENS
            empty = fields_prompt(asked, EMPTY_CHUNK)
            builder = await asyncio.to_thread(builder_around, job.model, empty, max_tokens=largest)
            veil = veil_for(job)
            wanted = list(texts_of(json.loads(asked.schema.text))) if veil is not None else []
            reading = await self._scans.read(
                job,
                builder,
                lambda done, of: told(Progress(done, of, 0, 0)),
                bill,
                lambda: self._act_as(job.caller, deadline),
                chunked=chunking_with(veil, wanted, builder),
            )
        return reading, veil

    async def answer(
        self,
        asked: FieldsJob,
        reading: Reading,
        veil: Veil | None,
        *,
        deadline: Deadline,
        bill: Bill,
        told: Callable[[Progress], None],
    ) -> Extraction:
        """The second half: what the model says of the parts, checked."""
        job = asked.job
        with self._act_as(job.caller, deadline):
            prompts = [fields_prompt(asked, chunk, veil) for chunk in reading.chunks]
            answers = await self._ask(asked, prompts, bill, _Parts(reading, told).done, veil=veil)
            context = await asyncio.to_thread(_context, asked, reading, veil)
            checked = await asyncio.to_thread(_first_answer, asked, answers, context)
            repaired, unaffordable = None, False
            if checked.violations and job.model.abilities.writes:
                try:
                    repaired = await self._repair(asked, reading, checked, context, bill, veil=veil)
                except FailedPrecondition as exc:
                    # What was bought so far is an answer, and it says what is wrong with it.
                    if exc.reason != MAX_COST_EXCEEDED:
                        raise
                    unaffordable = True
        made = _extraction(asked, reading, repaired or checked, bill, repaired=repaired is not None)
        return replace(made, repair_unaffordable=unaffordable, anonymised=counts_of(veil))

    async def _repair(
        self,
        asked: FieldsJob,
        reading: Reading,
        checked: _Checked,
        context: Context,
        bill: Bill,
        *,
        veil: Veil | None,
    ) -> _Checked:
        """One more call about what is wrong. Its answer is taken where less is wrong with it.

        What is missing alone is no reason to ask again: the model has read every page and found nothing, and to insist
        would be to ask for something made up.
        """
        chunk = _chunk_of(reading, checked)
        complain = _complaint if veil is None else _silent_complaint(veil)
        complaints = tuple(complain(violation, checked.fields) for violation in checked.violations[:MAX_COMPLAINTS])
        prompt = replace(fields_prompt(asked, chunk, veil), stage=FieldsStage.REPAIR, complaints=complaints)
        (answer,) = await self._ask(asked, [prompt], bill, _nothing, veil=veil)
        return await asyncio.to_thread(_better, asked, checked, answer, context)

    async def _ask(
        self,
        asked: FieldsJob,
        prompts: Sequence[FieldsPrompt],
        bill: Bill,
        done: Callable[[], None],
        *,
        veil: Veil | None,
    ) -> list[Answer]:
        job = asked.job
        keys = await asyncio.to_thread(
            lambda: [
                fields_key(
                    prompt,
                    digest=asked.schema.digest,
                    model=job.model.name,
                    provider_version=job.model.provider.version,
                )
                for prompt in prompts
            ]
        )
        answers = await self._map_reduce.answers_to(job, prompts, keys, bill, done=done, on_text=None)
        return [replace(answer, fields=restored_fields(answer.fields, veil)) for answer in answers]


class _Parts:
    """Counts the parts of the document that were looked through."""

    def __init__(self, reading: Reading, told: Callable[[Progress], None]) -> None:
        self._at = Progress(reading.pages_read, reading.page_count, 0, len(reading.chunks))
        self._told = told
        told(self._at)

    def done(self) -> None:
        """One more."""
        self._at = replace(self._at, chunks_done=self._at.chunks_done + 1)
        self._told(self._at)


def fields_prompt(asked: FieldsJob, chunk: Chunk, veil: Veil | None = None) -> FieldsPrompt:
    """What a model is asked about a part of the document."""
    schema = asked.schema
    return FieldsPrompt(
        stage=FieldsStage.EXTRACT,
        model=asked.job.model.short_name,
        schema=schema.text if veil is None else hidden_schema(schema.text, veil.hide),
        targets=schema.targets,
        max_fields=most_fields(schema.targets),
        chunk=chunk,
        anonymise=() if veil is None else veil.kinds,
    )


def _context(asked: FieldsJob, reading: Reading, veil: Veil | None) -> Context:
    targets = {target.template: target for target in asked.schema.targets}
    texts = (chunk.text if veil is None else veil.restore(chunk.text) for chunk in reading.chunks)
    return Context(targets, reading.locator, customs_of(texts))


def _first_answer(asked: FieldsJob, answers: Sequence[Answer], context: Context) -> _Checked:
    parts = [context.read(answer.fields) for answer in answers]
    fields = merge(parts) if any(parts) else ()
    return _checked(asked, fields, context)


def _checked(asked: FieldsJob, fields: Sequence[FieldValue], context: Context) -> _Checked:
    """The fields with what they violate. What is required, missing and may be null, is null."""
    violations, missing = asked.schema.violations(json_of(fields))
    nulls = [path for path in missing if _may_be_null(path, context)]
    if nulls:
        fields = [*fields, *(FieldValue(path, None, None, 0.0) for path in nulls)]
        violations, missing = asked.schema.violations(json_of(fields))
    return _Checked(tuple(sorted(fields, key=lambda field: _order(field.path))), violations, missing)


def _may_be_null(path: Path, context: Context) -> bool:
    target = context.targets.get(tuple(None if isinstance(part, int) else part for part in path))
    return target is not None and "null" in target.kinds


def _better(asked: FieldsJob, checked: _Checked, answer: Answer, context: Context) -> _Checked:
    wrong = [violation.path for violation in checked.violations]
    corrected = [
        FieldValue(path, candidate.value, candidate.citation, candidate.confidence(disputed=False))
        for path, candidate in context.read(answer.fields)
        if any(path[: len(above)] == above for above in wrong)
    ]
    again = _checked(asked, replaced(checked.fields, corrected), context)
    return again if _faults(again) < _faults(checked) else checked


def _faults(checked: _Checked) -> int:
    return len(checked.violations) + len(checked.missing)


def _complaint(violation: Violation, fields: Sequence[FieldValue]) -> Complaint:
    below = (field.value for field in fields if field.path[: len(violation.path)] == violation.path)
    said = "\n".join(str(value) for value in islice(below, 5))
    return Complaint(pointer_of(violation.path), violation.message, said[:500])


def _silent_complaint(veil: Veil) -> Callable[[Violation, Sequence[FieldValue]], Complaint]:
    """The same without the value, which may be a person's in another form than in the document, such as a date."""

    def complaint(violation: Violation, fields: Sequence[FieldValue]) -> Complaint:
        pointer = veil.hide(pointer_of(violation.path))
        return Complaint(pointer, f"the schema's {violation.keyword} does not allow the value", "")

    return complaint


def _chunk_of(reading: Reading, checked: _Checked) -> Chunk:
    """The part of the document that most of what is wrong was found in; the first where nobody knows."""
    wrong = [violation.path for violation in checked.violations]
    pages = Counter(
        field.citation.page
        for field in checked.fields
        if field.citation is not None and any(field.path[: len(path)] == path for path in wrong)
    )
    return max(reading.chunks, key=lambda chunk: (sum(pages[page] for page in chunk.pages), -chunk.index))


def _extraction(asked: FieldsJob, reading: Reading, checked: _Checked, bill: Bill, *, repaired: bool) -> Extraction:
    return Extraction(
        document=asked.job.document,
        schema=asked.schema_name,
        schema_digest=asked.schema.digest,
        json=json_of(checked.fields),
        fields=checked.fields,
        violations=checked.violations,
        missing=checked.missing,
        repaired=repaired,
        model=asked.job.model.name,
        cached=not bill.calls,
        failed_pages=reading.failed_pages,
        consumption=bill.consumption(),
        scans=reading.scans,
    )


def _order(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Names by their letters, places in lists by their numbers."""
    return tuple((0, part, "") if isinstance(part, int) else (1, 0, part) for part in path)


def _nothing() -> None:
    """A second try is no part."""
