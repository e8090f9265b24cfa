"""Settings of the summarizer, from the environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr, field_validator
from pydantic_settings import NoDecode

from services.runtime.config import Address, CommaList, HostPort, RuntimeSettings

Target = Annotated[str, Field(pattern=r"^([a-z0-9+.-]+:///?)?[^\s/]+:\d{1,5}$")]
"""A gRPC target, such as `127.0.0.1:7001` or `dns:///ledger.internal:7001`."""


ModelName = Annotated[str, Field(pattern=r"^[a-z0-9-]+/[A-Za-z0-9._:/-]+$")]


def _named(value: object) -> object:
    """`name=value,name=value` as a mapping."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if not all(name.strip() and text.strip() for name, _, text in pairs):
        raise ValueError("write it as name=value,name=value")
    return {name.strip(): text.strip() for name, _, text in pairs}


class SummarizerSettings(RuntimeSettings):
    """Every setting is PAGEMESH_ and its name in capitals."""

    grpc_listen: Address = HostPort(host="127.0.0.1", port=7003)
    http_listen: Address = HostPort(host="127.0.0.1", port=7103)
    peers: CommaList = ("edge", "extractor", "operator")
    redis_url: SecretStr
    """Where summaries are cached, `redis://[user:password@]host:port/db`; losing it costs speed only."""
    extractor_target: Target
    ledger_target: Target
    default_model: ModelName = "offline/lexrank"
    """The model of requests that name none."""
    fallback_models: CommaList = ()
    """Models that answer, in this order, where the one that was asked for cannot and the request names no others."""
    mistral_api_key: SecretStr | None = None
    """Makes Mistral's models available."""
    mistral_url: HttpUrl = HttpUrl("https://api.mistral.ai")
    provider_keys: Annotated[Mapping[str, SecretStr], NoDecode, BeforeValidator(_named)] = {}
    """Keys of providers of models.toml, `openai=KEY,groq=KEY`: makes their models available."""
    provider_urls: Annotated[Mapping[str, HttpUrl], NoDecode, BeforeValidator(_named)] = {}
    """Other addresses for them, `openai=https://proxy.internal/v1`."""
    models_file: Path | None = None
    """A file in the form of models.toml with further providers, or with others under the same names."""
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
