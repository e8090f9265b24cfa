"""The ledger as the one that tells webhooks."""

import re
from collections.abc import Sequence

from pagemesh.common.v1 import money_pb2
from pagemesh.ledger.v1 import webhook_delivery_pb2 as pb
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from services.runtime.clients import MeshClient
from services.summarizer.domain.job_notices import BatchNotice, JobNotice
from services.summarizer.domain.jobs import JobState
from services.summarizer.domain.purse import CURRENCY

_CAP_S = 20.0
"""The ledger adds up what each job cost, of the tenants that want to hear of it."""
_OUTCOMES = {
    JobState.SUCCEEDED: pb.JobEnded.OUTCOME_SUCCEEDED,
    JobState.FAILED: pb.JobEnded.OUTCOME_FAILED,
    JobState.CANCELLED: pb.JobEnded.OUTCOME_CANCELLED,
}
_REASON = re.compile(r"^[A-Z0-9_]{0,100}$")


class LedgerAnnouncer:
    """Announcer on LedgerService.PublishEvents."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = LedgerServiceStub(client.channel)

    async def announce(self, jobs: Sequence[JobNotice], batches: Sequence[BatchNotice]) -> None:
        """Jobs first, then batches."""
        events = [*map(_job_ended, jobs), *map(_batch_ended, batches)]
        await self._client.unary(self._stub.PublishEvents, pb.PublishEventsRequest(events=events), cap_s=_CAP_S)


def _job_ended(notice: JobNotice) -> pb.PublishedEvent:
    ended = pb.JobEnded(
        job=f"jobs/{notice.job_id}",
        batch=f"jobBatches/{notice.batch}" if notice.batch else "",
        document=notice.document,
        outcome=_OUTCOMES[notice.state],
        reason=notice.reason if _REASON.match(notice.reason) else "INTERNAL",
        attempts=notice.attempts,
        pages_read=notice.pages_read,
        page_count=notice.page_count,
    )
    ended.create_time.FromDatetime(notice.accept_time)
    event = pb.PublishedEvent(
        event_id=f"{notice.job_id}-{notice.sequence}", tenant=f"tenants/{notice.tenant}", job_ended=ended
    )
    event.occur_time.FromDatetime(notice.end_time)
    return event


def _batch_ended(notice: BatchNotice) -> pb.PublishedEvent:
    ended = pb.BatchEnded(
        batch=f"jobBatches/{notice.batch_id}",
        succeeded=notice.succeeded,
        failed=notice.failed,
        cancelled=notice.cancelled,
        cost=money_pb2.Money(currency=CURRENCY, micros=notice.cost_micros),
    )
    ended.create_time.FromDatetime(notice.accept_time)
    event = pb.PublishedEvent(
        event_id=f"{notice.batch_id}-{notice.sequence}", tenant=f"tenants/{notice.tenant}", batch_ended=ended
    )
    event.occur_time.FromDatetime(notice.end_time)
    return event
