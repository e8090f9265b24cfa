"""The service as its callers see it."""

import pytest

from tests.integration.summarizer.conftest import DOCUMENT, TENANT, Start, World
from tests.integration.summarizer.peers import Script

TEXT = (
    "Bees make honey from the nectar of flowers. They live together in hives. "
    "A hive holds one queen and many workers. The workers gather nectar and pollen. "
    "The queen lays all the eggs of the hive. Honey feeds the hive through the winter."
)


@pytest.fixture
def document(world: World) -> None:
    world.extractor.documents[TENANT, DOCUMENT] = Script((TEXT, "Bees dance to tell where flowers stand. " * 3))


@pytest.mark.usefixtures("document")
async def test_a_summary_is_made_paid_and_cached(start: Start, world: World) -> None:
    client = await start()
    summary = await client.summarize(length="SUMMARY_LENGTH_SHORT")
    assert summary.text
    assert summary.extractive
    assert summary.grounded_share == 1
    assert summary.consumption.settled
    (event,) = await world.ledger.events()
    assert event[3] == summary.consumption.cost.micros > 0
    cached = await client.summarize(length="SUMMARY_LENGTH_SHORT")
    assert cached.cached
    assert cached.text == summary.text
