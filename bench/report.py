"""What every benchmark prints: one JSON line, a ratio against a peer or a limit measured in the same run."""

import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Literal


def report(bench: str, *, ratio: float, goal: float, better: Literal["higher", "lower"], detail: object) -> None:
    """Prints the line. The goal is written beside the ratio and judged by whoever reads it."""
    line = {"bench": bench, "ratio": round(ratio, 3), "goal": goal, "better": better, "detail": detail}
    print(json.dumps(line), flush=True)


def skip(bench: str, why: str) -> None:
    """Says on stderr why a benchmark cannot run here."""
    print(f"{bench}: skipped: {why}", file=sys.stderr)


async def alternate_p50_us(rounds: int, *calls: Callable[[], Awaitable[object]]) -> list[float]:
    """Median time in microseconds of each call. They take turns, so that a slow moment of the machine hits all."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        await call()
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            begun = time.perf_counter()
            await call()
            taken.append((time.perf_counter() - begun) * 1e6)
    return [statistics.median(taken) for taken in times]
