"""Documents as values: ids, keys and page tokens."""

import datetime as dt

import pytest

from services.extractor.domain.documents import Cursor, document_id
from services.extractor.domain.keys import object_key
from services.runtime.errors import InvalidArgument, NotFound

NOW = dt.datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=dt.UTC)


def test_a_page_token_comes_back_as_it_went() -> None:
    cursor = Cursor(NOW, "0123456789abcdef" * 2)
    assert Cursor.parse(cursor.token()) == cursor


@pytest.mark.parametrize("token", ["x", "AAAA", "=" * 32, "é", "A" * 500, "/" * 32, "_" * 32])
def test_a_made_up_page_token_is_the_callers_mistake(token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Cursor.parse(token)
    assert refused.value.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("name", ["", "documents/", "documents/xyz", "jobs/" + "a" * 32, "documents/" + "A" * 32])
def test_a_name_of_nothing_is_not_found(name: str) -> None:
    with pytest.raises(NotFound):
        document_id(name)


@pytest.mark.parametrize("tenant", ["", "..", "../other", "a/b", ".hidden", "a" * 200])
def test_a_key_stays_in_its_tenants_folder(tenant: str) -> None:
    with pytest.raises(ValueError, match="not a tenant"):
        object_key(tenant, "a" * 64)
    with pytest.raises(ValueError, match="not a tenant"):
        object_key("acme", "../" + "a" * 61)
