"""Between the contract's messages of fields and schemas and the domain's values."""

from collections.abc import Mapping

from google.protobuf import json_format, struct_pb2

from pagemesh.summarizer.v1 import fields_pb2, job_work_pb2, schema_pb2
from services.runtime.errors import FieldViolation, InvalidArgument
from services.summarizer.api.mapping import from_citation, from_consumption, from_scans
from services.summarizer.api.personal_mapping import from_counts
from services.summarizer.domain.extract_fields import Wanted
from services.summarizer.domain.fields_values import Extraction, FieldValue, OtherValue, Violation, pointer_of
from services.summarizer.domain.found_field import Scalar
from services.summarizer.domain.json_schema import MAX_BYTES, too_large
from services.summarizer.domain.page_range import PageRange
from services.summarizer.domain.schema_values import StoredSchema

_MAX_STRUCT_BYTES = 6 * MAX_BYTES
"""More than any usable schema has: as a Struct, JSON grows 5.5 times at most (a digit and a comma are 11 bytes)."""
_MAX_POINTER_CHARS = 2_000
_MAX_MESSAGE_CHARS = 1_000


def to_wanted(request: fields_pb2.ExtractFieldsRequest) -> Wanted:
    """What is looked for. Raises InvalidArgument as to_schema."""
    if request.HasField("json_schema"):
        return Wanted(schema=to_schema(request.json_schema))
    return Wanted(stored=request.schema)


def to_range(message: fields_pb2.ExtractFieldsRequest | job_work_pb2.ExtractFieldsWork) -> PageRange:
    """The pages that are looked at."""
    return PageRange(message.first_page, message.last_page)


def to_schema(message: struct_pb2.Struct, *, field: str = "json_schema") -> Mapping[str, object]:
    """The schema as plain JSON. Raises InvalidArgument SCHEMA_INVALID where it holds what JSON cannot, SCHEMA_TOO_LARGE
    before it goes through one that takes long to go through."""
    if message.ByteSize() > _MAX_STRUCT_BYTES:
        raise too_large(f"may have {MAX_BYTES:,} bytes as JSON: split it into several", (), field)
    try:
        schema: Mapping[str, object] = json_format.MessageToDict(message)
    except (json_format.SerializeToJsonError, ValueError) as exc:
        text = "holds a number that JSON has not, or a value that is not set"
        raise InvalidArgument(
            "SCHEMA_INVALID", f"The schema cannot be used. It {text}.", fields=[FieldViolation(field, text)]
        ) from exc
    return schema


def from_stored(schema: StoredSchema) -> schema_pb2.Schema:
    """One version of a schema."""
    message = schema_pb2.Schema(name=schema.name, version=schema.version, digest=schema.digest)
    json_format.ParseDict(dict(schema.content), message.json_schema)
    message.create_time.FromDatetime(schema.create_time)
    return message


def from_extraction(extraction: Extraction) -> fields_pb2.Extraction:
    """The whole answer."""
    message = fields_pb2.Extraction(
        document=extraction.document,
        schema=extraction.schema,
        schema_digest=extraction.schema_digest,
        valid=extraction.valid,
        fields=[_from_field(field) for field in extraction.fields],
        violations=[_from_violation(violation) for violation in extraction.violations],
        missing_required=[pointer_of(path)[:_MAX_POINTER_CHARS] for path in extraction.missing],
        grounded_share=extraction.grounded_share,
        repaired=extraction.repaired,
        model=extraction.model,
        cached=extraction.cached,
        failed_pages=extraction.failed_pages,
        consumption=from_consumption(extraction.consumption),
        degraded_from=extraction.degraded_from,
        scan_reading=from_scans(extraction.scans),
        anonymised=from_counts(extraction.anonymised),
        repair_unaffordable=extraction.repair_unaffordable,
    )
    json_format.ParseDict(extraction.json, message.json)
    return message


def _from_field(field: FieldValue) -> fields_pb2.ExtractedField:
    return fields_pb2.ExtractedField(
        pointer=pointer_of(field.path)[:_MAX_POINTER_CHARS],
        value=_from_scalar(field.value),
        citation=from_citation(field.citation) if field.citation is not None else None,
        grounded=field.grounded,
        confidence=field.confidence,
        others=[_from_other(other) for other in field.others],
    )


def _from_other(other: OtherValue) -> fields_pb2.OtherValue:
    return fields_pb2.OtherValue(value=_from_scalar(other.value), citation=from_citation(other.citation))


def _from_scalar(value: Scalar) -> struct_pb2.Value:
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    return struct_pb2.Value(number_value=value)


def _from_violation(violation: Violation) -> fields_pb2.FieldViolation:
    return fields_pb2.FieldViolation(
        pointer=pointer_of(violation.path)[:_MAX_POINTER_CHARS],
        keyword=violation.keyword,
        message=violation.message[:_MAX_MESSAGE_CHARS],
    )
