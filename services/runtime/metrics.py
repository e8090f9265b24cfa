"""What is counted of every call. Labels are methods and codes, never tenants or ids."""

import functools

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter("pagemesh_grpc_server_handled", "Calls that ended, by status.", ["method", "code"])
SECONDS = Histogram(
    "pagemesh_grpc_server_seconds",
    "How long calls took.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
IN_FLIGHT = Gauge("pagemesh_grpc_server_in_flight", "Calls that are being answered.", ["method"])


@functools.lru_cache(maxsize=1000)
def of_method(method: str) -> tuple[Gauge, Histogram]:
    """What IN_FLIGHT and SECONDS have of a method that is served; remembered, because each search takes a lock."""
    return IN_FLIGHT.labels(method), SECONDS.labels(method)


handled = functools.lru_cache(maxsize=1000)(CALLS.labels)
"""The same of CALLS, by method and code."""
