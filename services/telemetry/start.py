"""Starts what the settings ask for; what they do not ask for is not even loaded."""

from collections.abc import Callable

from services.telemetry import spans
from services.telemetry.settings import TelemetrySettings

_ends: list[Callable[[], None]] = []


def start(service: str, settings: TelemetrySettings) -> None:
    """For the rest of the process, once its logs are configured; `close` ends it."""
    close()
    # Both take their time to load, and megabytes.
    if settings.otlp_endpoint is not None:
        from services.telemetry.otlp import OtlpTracer  # noqa: PLC0415

        spans.record_with(OtlpTracer(service, settings))
    if settings.sentry_dsn is not None:
        from services.telemetry.faults import FaultTeller  # noqa: PLC0415

        faults = FaultTeller(service, settings.sentry_dsn.get_secret_value())
        faults.install()
        _ends.append(faults.stop)


def close() -> None:
    """Brings away what is there, within a few seconds."""
    spans.close()
    while _ends:
        _ends.pop()()
