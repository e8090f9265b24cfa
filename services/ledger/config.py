"""Settings of the ledger."""

from typing import Annotated

from pydantic import Field, FilePath, SecretStr

from services.runtime.config import CommaList, DatabaseSettings, RuntimeSettings

Pepper = Annotated[SecretStr, Field(min_length=32)]


class BootstrapSettings(DatabaseSettings):
    """What making the first key needs."""

    key_pepper: Pepper
    """Secret under which API keys are hashed, at least 32 characters; changing it ends every key."""


class LedgerSettings(RuntimeSettings):
    """What serving needs."""

    peers: CommaList = ("edge", "summarizer", "operator")
    """Who may connect; which methods each of them may call is in the contract."""
    key_pepper: Pepper
    """Secret under which API keys are hashed, at least 32 characters; changing it ends every key."""
    database_pool: Annotated[int, Field(ge=2, le=32)] = 20
    """Most connections to Postgres, besides the one that listens for changes."""
    key_cache_keys: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Most keys whose check is remembered."""
    key_cache_ttl_s: Annotated[float, Field(gt=0, le=30)] = 30.0
    """How long a check is remembered while changes are heard; a key that is revoked meanwhile is dropped at once."""
    session_issuer: Annotated[str, Field(min_length=1, max_length=200)] = "pagemesh"
    """What sessions carry in `iss`; ledgers whose sessions are not each other's need different ones."""
    session_key_s: Annotated[float, Field(ge=2, le=90 * 86_400)] = 86_400.0
    """How long a key signs sessions before the next one takes over. Below two minutes, which is for tests, not all keys
    that count fit into the published set."""
    oidc_private_addresses: bool = False
    """Whether identity providers may be at addresses of private networks; for tests, and where there are no others."""
    oidc_ca_file: FilePath | None = None
    """Authorities that are trusted for identity providers besides the system's, as PEM."""
    expiry_interval_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How often holds past their time are looked for."""
