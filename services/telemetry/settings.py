"""What a process tells of itself to systems outside, besides its logs and metrics; all of it is off by default."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_DSN = re.compile(r"https?://[^@/?#\s]+@[^@/?#\s]+(/[^?#\s]*)?/\d+")


def _none(value: Any) -> Any:
    """Containers hand over an empty variable where nothing is set."""
    return None if value == "" else value


def _address(value: Any) -> Any:
    """The address of a tracker as it stands, or out of the file that is named."""
    if not isinstance(value, str) or not value:
        return value or None
    if value.startswith("/"):
        try:
            value = Path(value).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise ValueError("names a file that cannot be read") from exc
    if not _DSN.fullmatch(value):
        raise ValueError("write it as https://KEY@HOST/PROJECT, or as the absolute path of a file that holds it")
    return value


Endpoint = Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+:\d{1,5}$")]


class TelemetrySettings(BaseSettings):
    """Part of the settings of every service."""

    model_config = SettingsConfigDict(env_prefix="PAGEMESH_", frozen=True)

    otlp_endpoint: Annotated[Endpoint | None, BeforeValidator(_none)] = None
    """Where spans go, by OTLP over gRPC: `http://collector:4317`, or https. None: there are none."""
    otlp_ca_file: Annotated[Path | None, BeforeValidator(_none)] = None
    """PEM file of who is trusted to have signed the collector's certificate; None: who gRPC trusts."""
    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How many of the traces that begin here are recorded. Of the others, whoever began them decides."""
    sentry_dsn: Annotated[SecretStr | None, BeforeValidator(_address)] = None
    """Secret: the DSN of an error tracker that speaks Sentry's protocol, or the absolute path of a file that holds it.
    None: faults are told to the log alone."""
