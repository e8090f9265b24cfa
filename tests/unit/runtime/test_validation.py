"""Messages against their contracts: what is told, and that long wrong ones cost nobody else's time."""

import protovalidate
import pytest

from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from services.runtime import middleware
from services.runtime.errors import InvalidArgument


def told_of(message: pb.SearchPagesRequest) -> list[str]:
    with pytest.raises(InvalidArgument) as told:
        middleware._validate(message)
    return [violation.field for violation in told.value.fields]


def test_all_that_is_wrong_is_told_of_what_somebody_wrote() -> None:
    assert told_of(pb.SearchPagesRequest(query="", page_size=101)) == ["query", "page_size"]


def test_of_a_long_list_of_wrong_things_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    validate = protovalidate.validate

    def counted(message: pb.SearchPagesRequest, *, fail_fast: bool = False) -> None:
        try:
            validate(message, fail_fast=fail_fast)
        except protovalidate.ValidationError as exc:
            found.append(len(exc.violations))
            raise

    monkeypatch.setattr(protovalidate, "validate", counted)
    assert told_of(pb.SearchPagesRequest(query="word", documents=["x"] * 5_000)) == ["documents"]
    assert found == [1]


def test_what_is_told_fits_into_trailers() -> None:
    assert len(told_of(pb.SearchPagesRequest(query="word", documents=["x"] * 1_000))) == 20
