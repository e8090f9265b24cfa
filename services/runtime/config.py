"""Settings that every service has, read from the environment and checked whole before anything starts."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.telemetry.settings import TelemetrySettings

EX_CONFIG = 78
"""Exit code for a wrong configuration, from sysexits.h."""

_HOST_PORT = re.compile(r"^(?P<host>\[[0-9a-fA-F:]+\]|[^:\[\]]+):(?P<port>\d{1,5})$")


class HostPort(BaseModel):
    """A network address, written `host:port`."""

    model_config = ConfigDict(frozen=True)
    host: str
    port: int = Field(ge=0, le=65535)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _host_port(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _HOST_PORT.match(value)
    if match is None:
        raise ValueError("write it as host:port")
    return {"host": match["host"], "port": int(match["port"])}


def _comma_list(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _tls_dir(path: Path) -> Path:
    missing = [name for name in ("tls.crt", "tls.key", "ca.crt") if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return path


Address = Annotated[HostPort, NoDecode, BeforeValidator(_host_port)]
CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)]


class WrongSettingError(Exception):
    """A setting that can be told to be wrong only when everything is there."""


class DatabaseSettings(BaseSettings):
    """What migrations need."""

    model_config = SettingsConfigDict(env_prefix="PAGEMESH_", frozen=True)

    database_url: SecretStr
    """libpq URL of the service's own role."""


class RuntimeSettings(DatabaseSettings, TelemetrySettings):
    """What each service needs to be part of the mesh. Every setting is PAGEMESH_ and its name in capitals."""

    grpc_listen: Address
    """Where the service answers gRPC, over mTLS."""
    http_listen: Address
    """Where /metrics, /livez and /readyz are answered, in plain HTTP: a private address."""
    tls_dir: Annotated[Path, AfterValidator(_tls_dir)]
    """Folder with tls.crt, tls.key and ca.crt; they may be replaced while the service runs."""
    trust_domain: str = "pagemesh.local"
    """Host part of the mesh identities, spiffe://{trust_domain}/service/{name}."""
    peers: CommaList
    """Mesh identities that may connect."""
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    drain_s: Annotated[float, Field(ge=0, le=60)] = 3.0
    """How long to go on serving after NOT_SERVING, so that the edge's health check (every second) sees it."""
    shutdown_s: Annotated[float, Field(gt=0, le=600)] = 20.0
    """How long calls in flight may take to end afterwards."""
    calls_per_tenant: Annotated[int, Field(ge=1, le=100_000)] = 128
    """How many calls of a tenant are worked on at a time."""


S = TypeVar("S", bound=BaseSettings)


def load_settings(cls: type[S]) -> S:
    """Reads the environment. All faults are told at once on stderr, without values, and the process exits with 78."""
    try:
        return cls()
    except ValidationError as exc:
        prefix = str(cls.model_config.get("env_prefix", ""))
        print(f"The configuration has {exc.error_count()} fault(s):", file=sys.stderr)
        for fault in exc.errors(include_input=False, include_url=False):
            name = prefix + "_".join(str(part) for part in fault["loc"][:1]).upper()
            what = "is not set" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
            print(f"  {name}: {what}", file=sys.stderr)
        raise SystemExit(EX_CONFIG) from exc
