"""The events of a request as columns: they come by the hundred, and an object for each would be most of the work."""

from collections.abc import Mapping, Sequence

from pagemesh.ledger.v1 import usage_pb2
from services.ledger.api import mapping
from services.ledger.domain.usage_batch import EventBatch, micros_of

_ID_BYTES = 16
_FIRST_MICROS = micros_of(mapping.FIRST_TIME)
_LAST_MICROS = micros_of(mapping.LAST_TIME)


def batch_of(messages: Sequence[usage_pb2.UsageEvent]) -> EventBatch:
    """What a caller reports in `events`. The messages were held against the contract before.

    Raises InvalidArgument for an occur_time that is no time of the years 1 to 9999.
    """
    events = list(messages)  # asked once: each look at a repeated field makes a Python object of a message
    # An id is 32 hexadecimal digits with dashes between them, as the contract says.
    ids = bytes.fromhex("".join([e.event_id for e in events]).replace("-", ""))
    return EventBatch(
        event_ids=[ids[at : at + _ID_BYTES] for at in range(0, len(ids), _ID_BYTES)],
        models=[e.model for e in events],
        sent=[e.input_tokens for e in events],
        received=[e.output_tokens for e in events],
        operations=[e.operation for e in events],
        documents=[e.document for e in events],
        request_ids=[e.request_id for e in events],
        occur_micros=_occur_micros(events),
        tags=_tags(events),
        jobs=[e.job for e in events],
    )


def _occur_micros(events: Sequence[usage_pb2.UsageEvent]) -> list[int]:
    times = [e.occur_time for e in events]
    nanos = [time.nanos for time in times]
    micros = [time.seconds * 1_000_000 + part // 1000 for time, part in zip(times, nanos, strict=True)]
    if min(nanos) < 0 or max(nanos) >= mapping.NANOS or min(micros) < _FIRST_MICROS or max(micros) > _LAST_MICROS:
        for index, time in enumerate(times):  # says which one
            mapping.time_of(time, f"events[{index}].occur_time")
    return micros


def _tags(events: Sequence[usage_pb2.UsageEvent]) -> list[Mapping[str, str]]:
    """Equal tags, as most events of a batch have them, are one mapping."""
    known: dict[tuple[tuple[str, ...], tuple[str, ...]], Mapping[str, str]] = {}
    found = []
    for event in events:
        tags = event.tags
        keys = tuple(tags)
        values = tuple([tags[key] for key in keys])
        shared = known.get((keys, values))
        if shared is None:
            shared = known[keys, values] = dict(zip(keys, values, strict=True))
        found.append(shared)
    return found
