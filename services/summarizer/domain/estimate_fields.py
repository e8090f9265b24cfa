"""The use case: what an extraction of fields would use, cost and take, found out without spending anything."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.summarizer.domain.estimate import Estimate, Outlay, estimate_of_reading, outlay_of
from services.summarizer.domain.estimate_thoughts import Thoughts, acting_as_it_is
from services.summarizer.domain.events import Progress
from services.summarizer.domain.expected_calls import Guess
from services.summarizer.domain.expected_fields import ExpectedFields, Sightings, look, worst_complaints
from services.summarizer.domain.extract_fields import Wanted, fields_job, schema_of
from services.summarizer.domain.field_maker import FieldMaker, FieldsJob, fields_prompt
from services.summarizer.domain.fields_values import FieldsPrompt, FieldsStage
from services.summarizer.domain.keys import fields_key
from services.summarizer.domain.map_reduce import Bill, MapReduce
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.personal_kinds import Kinds
from services.summarizer.domain.ports import no_deadline
from services.summarizer.domain.prices import ModelPrice
from services.summarizer.domain.reading import Reading
from services.summarizer.domain.scans import Scans
from services.summarizer.domain.schema_book import SchemaBook
from services.summarizer.domain.values import Caller, TokenCount
from services.summarizer.domain.veil import Veil


class EstimateFields:
    """Goes the way of an extraction with calls that are made in thought only (see expected_fields.py)."""

    def __init__(self, thoughts: Thoughts, *, schemas: SchemaBook) -> None:
        self._thoughts = thoughts
        self._schemas = schemas

    async def __call__(
        self,
        caller: Caller,
        document: str,
        wanted: Wanted,
        *,
        model: str = "",
        ocr_model: str = "",
        anonymise: Kinds | None = None,
        within: PageRange = ALL_PAGES,
        at: str = "fields.",
    ) -> Estimate:
        """The estimate; arguments are those of ExtractFields, and `at` is where the request says them. Where the parts
        were paid for before, their answers are checked as the run checks them: so it is known whether the model would
        be asked once more.

        Raises what ExtractFields raises before its first call to a model, FailedPrecondition MODEL_UNPRICED, and
        Unavailable where the ledger cannot tell the price.
        """
        thoughts = self._thoughts
        chosen = await thoughts.models.chosen(caller.tenant, model, field=f"{at}options.model")
        ocr = await thoughts.models.reader(caller.tenant, ocr_model, field=f"{at}options.ocr_model")
        name, schema = await schema_of(self._schemas, caller.tenant, wanted, at=at)
        await thoughts.pages.exists(document)
        price = await thoughts.prices.of(chosen.name)
        job = fields_job(caller, document, chosen, thoughts.policy.kinds(anonymise), within)
        asked = FieldsJob(replace(job, ocr=ocr), schema, name)
        scanned = Bill()
        async with thoughts.holding(document):
            scans = await thoughts.scans(asked.job)
            maker = FieldMaker(scans=scans, map_reduce=scans.map_reduce, act_as=acting_as_it_is)
            reading, veil = await maker.read(asked, no_deadline, scanned, _untold)
        prompts = await asyncio.to_thread(lambda: [fields_prompt(asked, chunk, veil) for chunk in reading.chunks])
        run = _Run(
            thoughts, scans, asked, reading, veil, price, await asyncio.to_thread(look, chosen, prompts), prompts
        )
        expected, count = await run.outlay(Guess.EXPECTED)
        low, _ = await run.outlay(Guess.LOW)
        high, _ = await run.outlay(Guess.HIGH)
        return estimate_of_reading(
            asked.job, reading, price.version, (low, expected, high), scanned=scanned, asked=count, veil=veil
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """The second half of an extraction, in thought. `most` remembers what calls can use at most."""

    thoughts: Thoughts
    scans: Scans
    asked: FieldsJob
    reading: Reading
    veil: Veil | None
    price: ModelPrice
    sightings: Sightings
    prompts: Sequence[FieldsPrompt]
    most: dict[bytes, TokenCount] = field(default_factory=dict)

    async def outlay(self, guess: Guess) -> tuple[Outlay, int]:
        """What all calls come to, and how many of them are about parts of the document."""
        thoughts, bill = self.thoughts, Bill()
        calls = ExpectedFields(self.price, guess, self.sightings, self.most)
        map_reduce = MapReduce(results=thoughts.results, paid=calls)
        maker = FieldMaker(scans=self.scans, map_reduce=map_reduce, act_as=acting_as_it_is)
        await maker.answer(self.asked, self.reading, self.veil, deadline=no_deadline, bill=bill, told=_untold)
        first = len(calls.seconds.get(FieldsStage.EXTRACT, ()))
        model = self.asked.job.model
        if guess is Guess.HIGH and first and model.abilities.writes and FieldsStage.REPAIR not in calls.seconds:
            # Nobody knows what the answers say: in the worst case the schema allows none of it.
            bill.calls.append(await calls.make(self.asked.job.order(*self._repair())))
        return outlay_of(bill, calls.seconds), first

    def _repair(self) -> tuple[FieldsPrompt, bytes]:
        longest = max(self.prompts, key=lambda prompt: len(prompt.chunk.text))
        prompt = replace(longest, stage=FieldsStage.REPAIR, complaints=worst_complaints(longest))
        model = self.asked.job.model
        version = model.provider.version
        return prompt, fields_key(prompt, digest=self.asked.schema.digest, model=model.name, provider_version=version)


def _untold(progress: Progress) -> None:
    """Nobody watches an estimate being made."""
