"""Settings of the summarizer, from the environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr, field_validator
from pydantic_settings import NoDecode

from services.runtime.config import Address, CommaList, HostPort, RuntimeSettings
from services.summarizer.domain.personal_kinds import ALL, Kind, Kinds, Policy, in_order
from services.summarizer.domain.rates import Rate

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


def _kinds(value: object) -> object:
    """`email,phone` or `all` as kinds."""
    if not isinstance(value, str):
        return value
    names = [name.strip().upper() for name in value.split(",") if name.strip()]
    if names == ["ALL"]:
        return ALL
    if unknown := [name for name in names if name not in Kind.__members__]:
        known = ", ".join(name.lower() for name in Kind.__members__)
        raise ValueError(f"there is no {unknown[0].lower()}: write all, or some of {known}")
    return in_order(Kind[name] for name in names)


PersonalData = Annotated[Kinds, NoDecode, BeforeValidator(_kinds)]


def _rate(value: object) -> object:
    """`tokens:requests` of a minute, or the tokens alone."""
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and len(part) <= 12 for part in parts):
        raise ValueError("write it as TOKENS:REQUESTS of a minute; 0 for no limit")
    return Rate(*map(int, parts))


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
    embedding_model: Annotated[str, Field(pattern=r"^([a-z0-9-]+/[A-Za-z0-9._:/-]+)?$")] = ""
    """The model that makes vectors of pages and of queries, such as `mistral/mistral-embed` or
    `openai/text-embedding-3-small`; its provider needs its key as for text. Without one nothing is found by meaning."""
    ocr_model: Annotated[str, Field(pattern=r"^([a-z0-9-]+/[A-Za-z0-9._:/-]+)?$")] = ""
    """Who reads pages that have no text of their own, where the request does not say; nobody unless set."""
    anonymise: PersonalData = ()
    """Personal data that is replaced before text leaves for a provider, where a request says nothing of it."""
    anonymise_always: PersonalData = ()
    """What is replaced whatever a request says."""
    model_rates: Annotated[
        Mapping[
            Annotated[str, Field(pattern=r"^[a-z0-9-]+/([A-Za-z0-9._:/-]+|\*)$")],
            Annotated[Rate, BeforeValidator(_rate)],
        ],
        NoDecode,
        BeforeValidator(_named),
    ] = {}
    """What models may be sent in a minute, by all replicas together, `openai/gpt-4.1=30000:500,mistral/*=500000`:
    tokens and requests, each 0 for no limit; it goes before what models.toml says."""
    summary_ttl_s: Annotated[int, Field(ge=1, le=30 * 86_400)] = 3_600
    """How long a summary is cached."""

    job_queue_limit: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    """How many jobs of one tenant may wait."""
    job_attempts: Annotated[int, Field(ge=1, le=20)] = 5
    """How often a job is tried, where its request does not say."""
    job_retention_s: Annotated[int, Field(ge=60, le=400 * 86_400)] = 30 * 86_400
    """How long a job that has ended can be looked at, with its events and its result."""

    def personal_data(self) -> Policy:
        """What is replaced for requests."""
        return Policy(self.anonymise, self.anonymise_always)

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


class WorkerSettings(SummarizerSettings):
    """Those of a worker, which answers no calls of the mesh but for its health."""

    grpc_listen: Address = HostPort(host="127.0.0.1", port=7004)
    http_listen: Address = HostPort(host="127.0.0.1", port=7104)
    job_places: Annotated[int, Field(ge=1, le=100)] = 4
    """Jobs that a worker does at the same time, besides an urgent one."""
    job_tenant_places: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Jobs of one tenant that run at the same time, in all workers together. The same for each of them."""
    job_lease_s: Annotated[float, Field(ge=0.5, le=300)] = 15.0
    """A worker that was not heard of for so long loses its jobs."""
    job_progress_s: Annotated[float, Field(ge=0.05, le=60)] = 0.5
    """How often progress of one job is told at most."""
    answer_retention_s: Annotated[int, Field(ge=0, le=4_000 * 86_400)] = 30 * 86_400
    """How long an answer that was paid for, or the vector of a query, is kept after its last use; whoever asks again
    then pays again. 0: as long as its document, and vectors of queries for good."""
    job_attempt_s: Annotated[float, Field(ge=1, le=86_400)] = 900.0
    """How long one attempt may take: the document is held for as long."""
