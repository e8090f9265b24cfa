"""docs/api/openapi.json is valid OpenAPI 3.1 and describes every public method."""

import json
from pathlib import Path

import pytest
from google.api import annotations_pb2
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.unit.runtime.test_access import methods

DOCUMENT = json.loads((Path(__file__).parents[2] / "docs" / "api" / "openapi.json").read_text())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the validator's own
def test_it_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_public_method_is_in_it() -> None:
    described = {operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()}
    public = {str(m.name) for m in methods() if m.GetOptions().HasExtension(annotations_pb2.http)}
    assert described == public


def test_internal_methods_are_not_in_it() -> None:
    assert "Reserve" not in json.dumps(DOCUMENT["paths"])
