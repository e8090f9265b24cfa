"""Settings of the summarizer, from the environment."""

from typing import Annotated

from pydantic import Field, HttpUrl, SecretStr, field_validator

from services.runtime.config import Address, CommaList, HostPort, RuntimeSettings

Target = Annotated[str, Field(pattern=r"^([a-z0-9+.-]+:///?)?[^\s/]+:\d{1,5}$")]
"""A gRPC target, such as `127.0.0.1:7001` or `dns:///ledger.internal:7001`."""


class SummarizerSettings(RuntimeSettings):
    """Every setting is PAGEMESH_ and its name in capitals."""

    grpc_listen: Address = HostPort(host="127.0.0.1", port=7003)
    http_listen: Address = HostPort(host="127.0.0.1", port=7103)
    peers: CommaList = ("edge", "extractor", "operator")
    redis_url: SecretStr
    """Where summaries are cached, `redis://[user:password@]host:port/db`; losing it costs speed only."""
    extractor_target: Target
    ledger_target: Target
    default_model: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[A-Za-z0-9._:/-]+$")] = "offline/lexrank"
    """The model of requests that name none."""
    mistral_api_key: SecretStr | None = None
    """Makes Mistral's models available."""
    mistral_url: HttpUrl = HttpUrl("https://api.mistral.ai")
    summary_ttl_s: Annotated[int, Field(ge=1, le=30 * 86_400)] = 3_600
    """How long a summary is cached."""

    @field_validator("mistral_api_key", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        return value or None

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("write it as redis://host:port/db")
        return value
