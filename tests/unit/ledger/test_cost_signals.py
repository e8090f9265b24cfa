"""What the metric of cost counts: each record once, by its model."""

from dataclasses import replace
from datetime import timedelta

from prometheus_client import REGISTRY

from services.ledger.adapters import cost_signals
from tests.unit.ledger.samples import a_record, an_event


def counted(model: str) -> float:
    return REGISTRY.get_sample_value("pagemesh_ledger_cost_micros_total", {"model": model}) or 0.0


def test_a_settled_call_counts_when_it_is_new() -> None:
    record = a_record(replace(an_event(), model="metric/settled"), cost_micros=1234)
    cost_signals.settled(record, record)
    assert counted("metric/settled") == 1234
    later = replace(record, record_time=record.record_time + timedelta(seconds=1))
    cost_signals.settled(later, record)
    assert counted("metric/settled") == 1234


def test_a_batch_counts_by_model() -> None:
    cost_signals.recorded(["metric/a", "metric/b", "metric/a"], [1, 20, 300])
    assert (counted("metric/a"), counted("metric/b")) == (301, 20)
