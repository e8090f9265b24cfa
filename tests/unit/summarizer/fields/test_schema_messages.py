"""Schemas as messages: what is too large is refused before anything goes through it."""

import pytest
from google.protobuf import json_format, struct_pb2
from google.protobuf.message import Message

from buf.validate import validate_pb2
from pagemesh.summarizer.v1 import fields_pb2, job_work_pb2, schema_service_pb2
from services.runtime.errors import InvalidArgument
from services.summarizer.api.fields_mapping import to_schema
from services.summarizer.domain.json_schema import MAX_BYTES


def struct(content: dict[str, object]) -> struct_pb2.Struct:
    return json_format.ParseDict(content, struct_pb2.Struct())


def test_the_densest_schema_that_may_be_usable_is_not_refused_for_its_form() -> None:
    numbers = [1] * (MAX_BYTES // 2 - 8)
    assert to_schema(struct({"enum": numbers})) == {"enum": numbers}


def test_one_that_cannot_be_usable_is_refused_as_it_comes() -> None:
    with pytest.raises(InvalidArgument) as told:
        to_schema(struct({f"a{number}": 1 for number in range(20_000)}), field="fields.json_schema")
    assert told.value.reason == "SCHEMA_TOO_LARGE"
    assert [violation.field for violation in told.value.fields] == ["fields.json_schema"]


@pytest.mark.parametrize(
    "request_type",
    [
        fields_pb2.ExtractFieldsRequest,
        job_work_pb2.ExtractFieldsWork,
        schema_service_pb2.CreateSchemaRequest,
    ],
)
def test_validation_does_not_walk_through_it(request_type: type[Message]) -> None:
    # It would visit each value on the event loop: half a second for what a megabyte holds.
    options = request_type.DESCRIPTOR.fields_by_name["json_schema"].GetOptions()
    assert options.Extensions[validate_pb2.field].ignore == validate_pb2.IGNORE_ALWAYS
