"""The last progress of a job is never lost, however quickly the job ends."""

from services.summarizer.domain.events import Progress
from services.summarizer.domain.job_work import Told
from services.summarizer.domain.jobs import Claim, EventKind, Result
from tests.unit.summarizer.flow import test_job_worker

flow, shop = test_job_worker.flow, test_job_worker.shop


async def test_the_last_progress_of_a_quick_job_comes_before_its_end(shop: test_job_worker.Shop) -> None:
    async def do(claim: Claim, told: Told) -> Result:
        told(Progress(9, 9, 3, 3))
        return test_job_worker.DONE

    (job_id,) = await shop.submit()
    shop.worker(do)
    events = await test_job_worker.watched(shop, job_id, 0)
    assert [(event.kind, event.progress.pages_read) for event in events][-2:] == [
        (EventKind.PROGRESS, 9),
        (EventKind.ENDED, 9),
    ]
