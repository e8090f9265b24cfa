"""How full the pools of this process are, read when somebody asks."""

from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from psycopg_pool import AsyncConnectionPool


class PoolMetrics(Collector):
    """Shows every pool that is open. A pool of the same name takes the other one's place."""

    def __init__(self) -> None:
        self._pools: WeakSet[AsyncConnectionPool[Any]] = WeakSet()

    def add(self, pool: AsyncConnectionPool[Any]) -> None:
        """Shows it from now on, until nobody uses it any more."""
        self._pools.add(pool)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        connections = GaugeMetricFamily(
            "pagemesh_database_connections",
            "Connections of this process to Postgres, `used` or `idle`.",
            labels=["pool", "state"],
        )
        most = GaugeMetricFamily("pagemesh_database_connections_max", "How many there may be at most.", labels=["pool"])
        waiting = GaugeMetricFamily(
            "pagemesh_database_requests_waiting", "Who waits for a connection.", labels=["pool"]
        )
        for pool in {pool.name: pool for pool in list(self._pools) if not pool.closed}.values():
            told = pool.get_stats()
            idle = told.get("pool_available", 0)
            connections.add_metric([pool.name, "used"], told.get("pool_size", 0) - idle)
            connections.add_metric([pool.name, "idle"], idle)
            most.add_metric([pool.name], told.get("pool_max", 0))
            waiting.add_metric([pool.name], told.get("requests_waiting", 0))
        yield from (connections, most, waiting)


POOLS = PoolMetrics()
REGISTRY.register(POOLS)
