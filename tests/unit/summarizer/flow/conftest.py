"""What the tests of this folder begin with."""

from collections.abc import Iterator

import pytest

from services.summarizer.adapters.acting import act_as
from tests.unit.summarizer.flow.parts import ALICE


@pytest.fixture
def for_alice() -> Iterator[None]:
    """The calls of the test are made for Alice."""
    with act_as(ALICE):
        yield
