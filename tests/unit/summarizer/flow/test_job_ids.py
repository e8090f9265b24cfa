"""Ids grow, whatever the clock does."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.summarizer.domain.job_ids import JobIds, first_at

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 300)), max_size=30))
def test_each_id_is_larger_than_all_before_it(steps: list[tuple[int, int]]) -> None:
    times = iter([NOW + timedelta(milliseconds=step) for step, _ in steps])
    ids = JobIds(lambda: next(times))
    made = [job_id for _, count in steps for job_id in ids.many(count)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {len(job_id) for job_id in made} <= {32}


def test_two_processes_make_different_ids_and_a_time_parts_them() -> None:
    mine, theirs = JobIds(lambda: NOW), JobIds(lambda: NOW)
    made = {*mine.many(1000), *theirs.many(1000)}
    assert len(made) == 2000
    assert first_at(NOW) <= min(made)
    assert max(made) < first_at(NOW + timedelta(milliseconds=1))
