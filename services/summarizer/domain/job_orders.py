"""What is found out about work before it is accepted, so that no job fails tomorrow of what can be told today."""

import asyncio
import json
from dataclasses import replace
from typing import Protocol

from services.summarizer.domain import json_schema, questions
from services.summarizer.domain.jobs import AskWork, ExtractWork, FieldsWork, SummarizeWork, Work
from services.summarizer.domain.models import Models
from services.summarizer.domain.personal_kinds import REPLACING_NOTHING, Policy
from services.summarizer.domain.questions import Question
from services.summarizer.domain.schema_values import StoredSchema

_FIELD = "work.extract_fields"


class Schemas(Protocol):
    """Stored schemas."""

    async def get(self, tenant: str, name: str) -> StoredSchema:
        """That version, or the latest. NotFound SCHEMA_NOT_FOUND."""
        ...


class Orders:
    """Checks work and settles what may change until it is done."""

    def __init__(self, *, models: Models, schemas: Schemas, policy: Policy = REPLACING_NOTHING) -> None:
        self._policy = policy
        self._models = models
        self._schemas = schemas

    async def settled(self, tenant: str, work: Work) -> Work:
        """The work with the version of its schema, and with what is to be replaced. Raises InvalidArgument
        (MODEL_UNKNOWN, QUESTION_INVALID, SCHEMA_INVALID, SCHEMA_TOO_LARGE), PermissionDenied MODEL_NOT_ALLOWED,
        NotFound SCHEMA_NOT_FOUND, and Unavailable."""
        match work:
            case SummarizeWork(options, fallbacks):
                await self._models.lineup(tenant, options.model, fallbacks)
                await self._models.reader(tenant, options.ocr_model)
                return replace(work, options=replace(options, anonymise=self._policy.settled(options.anonymise)))
            case ExtractWork():
                pass
            case AskWork(question, max_passages, _, model, fallbacks):
                questions.check(Question(question, max_passages=max_passages), field="work.ask.question")
                await self._models.lineup(tenant, model, fallbacks)
                return replace(work, anonymise=self._policy.settled(work.anonymise))
            case FieldsWork():
                await self._models.lineup(tenant, work.model, work.fallbacks)
                await self._models.reader(tenant, work.ocr_model)
                asked = replace(work, anonymise=self._policy.settled(work.anonymise))
                return await self._with_schema(tenant, asked)
        return work

    async def _with_schema(self, tenant: str, work: FieldsWork) -> FieldsWork:
        if not work.stored:
            plain = await asyncio.to_thread(json.loads, work.schema)
            checked = await asyncio.to_thread(json_schema.check, plain, field=f"{_FIELD}.json_schema")
            return replace(work, schema=checked.text, stored="")
        found = await self._schemas.get(tenant, work.stored)
        # A bound may have been lowered since it was stored.
        await asyncio.to_thread(json_schema.check, found.content, field=f"{_FIELD}.schema")
        return replace(work, schema="", stored=found.name)
