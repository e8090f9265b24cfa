"""The parts that reuse answers to near-identical texts, wired."""

import time
import uuid

from services.summarizer.adapters.postgres_similar import PostgresSimilar
from services.summarizer.domain.savings import Savings
from services.summarizer.domain.similar import ReuseSavings, Similar
from services.summarizer.outside import Outside


def compose(world: Outside, savings: Savings) -> tuple[Similar, ReuseSavings]:
    """What looks for them and remembers, and what tells what they saved."""
    reuse = ReuseSavings(prices=world.prices, savings=savings, new_id=lambda: str(uuid.uuid4()), now_s=time.time)
    return Similar(PostgresSimilar(world.pool)), reuse


def looking(world: Outside) -> Similar:
    """What only looks, for estimates."""
    return Similar(PostgresSimilar(world.pool), remembers=False)
