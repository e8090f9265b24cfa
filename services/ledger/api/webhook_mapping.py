"""Messages about what webhooks are told to values of the domain and back."""

from pagemesh.ledger.v1 import webhook_delivery_pb2 as pb
from services.ledger.api.mapping import time_of, timestamp_of
from services.ledger.domain.webhook_messages import Delivery, DeliveryState, Event

_OUTCOMES = {
    pb.JobEnded.OUTCOME_SUCCEEDED: "succeeded",
    pb.JobEnded.OUTCOME_FAILED: "failed",
    pb.JobEnded.OUTCOME_CANCELLED: "cancelled",
}
_STATE = "WEBHOOK_DELIVERY_STATE_"


def state_of(number: pb.WebhookDeliveryState.ValueType) -> DeliveryState | None:
    """None where all are meant."""
    return DeliveryState(pb.WebhookDeliveryState.Name(number).removeprefix(_STATE)) if number else None


def delivery_message(delivery: Delivery) -> pb.WebhookDelivery:
    """A message as its owner sees it."""
    message = pb.WebhookDelivery(
        name=f"webhookDeliveries/{delivery.delivery_id}",
        webhook=f"webhooks/{delivery.webhook_id}",
        event_type=delivery.event_type,
        state=pb.WebhookDeliveryState.Value(_STATE + delivery.state.value),
        attempts=delivery.attempts,
        last_failure=delivery.last_failure,
        body=delivery.body,
        create_time=timestamp_of(delivery.create_time),
    )
    if delivery.state is DeliveryState.PENDING:
        message.due_time.CopyFrom(timestamp_of(delivery.due_time))
    if delivery.end_time is not None:
        message.end_time.CopyFrom(timestamp_of(delivery.end_time))
    return message


def event_of(message: pb.PublishedEvent, path: str) -> Event:
    """What is told. Raises InvalidArgument where a time is none."""
    time = time_of(message.occur_time, f"{path}.occur_time")
    tenant = message.tenant.removeprefix("tenants/")
    data: dict[str, str | int | None] = {"tenant": message.tenant}
    if message.HasField("batch_ended"):
        batch = message.batch_ended
        data |= {
            "batch": batch.batch,
            "succeeded": batch.succeeded,
            "failed": batch.failed,
            "cancelled": batch.cancelled,
            "create_time": time_of(batch.create_time, f"{path}.batch_ended.create_time").isoformat(),
            "end_time": time.isoformat(),
            "currency": batch.cost.currency or None,
            "cost_micros": batch.cost.micros if batch.HasField("cost") else None,
        }
        return Event(tenant, message.event_id, "batch.ended", time, data)
    job = message.job_ended
    outcome = _OUTCOMES[job.outcome]
    data |= {
        "job": job.job,
        "batch": job.batch or None,
        "document": job.document,
        "state": outcome.upper(),
        "reason": job.reason or None,
        "attempts": job.attempts,
        "pages_read": job.pages_read,
        "page_count": job.page_count,
        "create_time": time_of(job.create_time, f"{path}.job_ended.create_time").isoformat(),
        "end_time": time.isoformat(),
    }
    return Event(tenant, message.event_id, f"job.{outcome}", time, data, job=job.job)
