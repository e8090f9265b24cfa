"""How many watches a tenant may have open."""

import pytest

from services.runtime.errors import NotFound, ResourceExhausted
from services.summarizer.domain.job_desk import MAX_WATCHES
from services.summarizer.domain.jobs import ExtractWork
from tests.unit.summarizer.flow.test_job_kinds import Shop, order


async def test_a_tenant_has_so_many_watches_and_no_more() -> None:
    shop = Shop()
    job_id = (await shop.desk.create(order(ExtractWork()))).job_id
    open_ones = [shop.desk.watch("acme", job_id, after=0) for _ in range(MAX_WATCHES)]
    for watch in open_ones:
        await anext(watch)
    with pytest.raises(ResourceExhausted) as refused:
        await anext(shop.desk.watch("acme", job_id, after=0))
    assert refused.value.reason == "TOO_MANY_WATCHES"
    with pytest.raises(NotFound):
        await anext(shop.desk.watch("globex", job_id, after=0))
    await open_ones[0].aclose()
    assert await anext(shop.desk.watch("acme", job_id, after=0))
    for watch in open_ones:
        await watch.aclose()
