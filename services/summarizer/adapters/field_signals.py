"""What stored schemas tell operators."""

from prometheus_client import Counter

# schemas_total in what is scraped.
_SCHEMAS = Counter("schemas", "Schemas that were asked to be kept: created, or known already.", ["outcome"])


def schema_kept(outcome: str) -> None:
    """A schema was kept: `created` now, or `known` before."""
    _SCHEMAS.labels(outcome).inc()
