"""Keys under which answers are kept: everything that could change the answer goes into the key."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from services.summarizer.domain.fields_values import VERSION as FIELDS_VERSION
from services.summarizer.domain.fields_values import FieldsPrompt
from services.summarizer.domain.personal_kinds import VERSION as ANONYMISE_VERSION
from services.summarizer.domain.personal_kinds import Kinds
from services.summarizer.domain.pictures import Picture
from services.summarizer.domain.values import Claim, Options, Prompt

PIPELINE_VERSION = "2"
"""Changes whenever the way from pages to a summary does: the chunk plan, the tree of reductions, the citations."""


QUESTION_VERSION = "1"
"""Changes whenever questions would be answered otherwise out of the same pages: what is asked of models, and how
sentences are chosen."""


OCR_VERSION = "1"
"""Changes whenever pages that a model read would make another text."""


def summary_key(tenant: str, document: str, options: Options, *, provider_version: str, reused: bool = False) -> bytes:
    """32 bytes that name one summary of one tenant; the models of the options must be resolved. With `reused` parts of
    it are answers to other documents, which only those find who want that."""
    # Only where there is one: the keys of other summaries stay as they were.
    read_by = ["ocr", OCR_VERSION, options.ocr_model] if options.ocr_model else []
    asked = [*_options(options), options.model, *read_by, *_hidden(options.anonymise), *(["reused"] if reused else [])]
    return _digest(["summary", PIPELINE_VERSION, provider_version, tenant, document, *asked])


def page_key(picture: Picture, *, model: str, provider_version: str) -> bytes:
    """32 bytes that name what a model reads in a picture: the same picture is the same question."""
    digest = hashlib.sha256(picture.content).hexdigest()
    return _digest(["page", provider_version, model, picture.media_type, digest])


def content_key(prompt: Prompt, *, model: str, provider_version: str) -> bytes:
    """32 bytes that name one answer of a model; `model` is `{provider}/{model}`.

    The document is not part of it: the same words on the same pages are the same question.
    """
    chunk = [prompt.chunk.text, prompt.chunk.spans] if prompt.chunk else None
    asked = ["question", QUESTION_VERSION, prompt.question] if prompt.question else []
    return _digest(
        [
            "answer",
            provider_version,
            model,
            prompt.stage.value,
            *_options(prompt.options),
            prompt.max_sentences,
            chunk,
            _claims(prompt.claims),
            *asked,
            *_hidden(prompt.options.anonymise),
        ]
    )


def question_key(prompt: Prompt, *, model: str, provider_version: str) -> bytes:
    """What is asked about a chunk, whatever it says: the same for all chunks that are asked about alike."""
    return content_key(replace(prompt, chunk=None), model=model, provider_version=provider_version)


def fields_key(prompt: FieldsPrompt, *, digest: str, model: str, provider_version: str) -> bytes:
    """The same for an answer with fields; `digest` is the schema's."""
    complaints = [[complaint.pointer, complaint.problem, complaint.value] for complaint in prompt.complaints]
    chunk = [prompt.chunk.text, prompt.chunk.spans]
    asked = [prompt.stage.value, digest, prompt.max_fields, chunk, complaints, *_hidden(prompt.anonymise)]
    return _digest(["fields", FIELDS_VERSION, provider_version, model, *asked])


def embedding_key(prompt: Prompt, *, model: str, provider_version: str) -> bytes:
    """The same for the vectors of texts."""
    return _digest(["vectors", provider_version, model, list(prompt.texts)])


def _hidden(kinds: Kinds | None) -> list[object]:
    """What was replaced. Where nothing was, keys are what they always were."""
    return ["anonymise", ANONYMISE_VERSION, [kind.value for kind in kinds]] if kinds else []


def _options(options: Options) -> list[object]:
    # Where there is none it leaves no trace: what was bought before there were audiences keeps its key.
    audience = ["audience", options.audience] if options.audience else []
    return [options.length.name, options.style.value, options.language.lower(), options.focus, *audience]


def _claims(claims: Sequence[Claim]) -> list[object]:
    return [[claim.text, [[quote.text, quote.page] for quote in claim.quotes]] for claim in claims]


def _digest(parts: list[object]) -> bytes:
    # JSON keeps the borders between the parts; ASCII escapes keep lone surrogates of broken PDFs encodable.
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True, separators=(",", ":")).encode()).digest()
