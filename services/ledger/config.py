"""Settings of the ledger."""

from typing import Annotated

from pydantic import Field, FilePath, SecretStr, field_validator

from services.ledger.domain.usage_window import RETENTION_MONTHS
from services.runtime.config import CommaList, DatabaseSettings, RuntimeSettings

Pepper = Annotated[SecretStr, Field(min_length=32)]


class BootstrapSettings(DatabaseSettings):
    """What making the first key needs."""

    key_pepper: Pepper
    """Secret under which API keys are hashed, at least 32 characters; changing it ends every key."""


class LedgerSettings(RuntimeSettings):
    """What serving needs."""

    peers: CommaList = ("edge", "extractor", "summarizer", "operator")
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
    browser_session_s: Annotated[float, Field(ge=60, le=7 * 86_400)] = 86_400.0
    """How long a browser stays signed in."""
    oidc_private_addresses: bool = False
    """Whether identity providers may be at addresses of private networks; for tests, and where there are no others."""
    oidc_ca_file: FilePath | None = None
    """Authorities that are trusted for identity providers besides the system's, as PEM."""
    expiry_interval_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How often holds past their time are looked for."""
    usage_interval_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How often sums of new usage are added to the rollups; reports are exact whatever it is."""
    usage_retention_months: Annotated[int, Field(ge=2, le=600)] = RETENTION_MONTHS
    """How many months of usage records before the present one are kept; sums are kept for good."""
    anomaly_interval_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """How often the day of every tenant is compared with what its days usually cost."""
    reports_database_url: SecretStr | None = None
    """A replica of the database that reports of usage are read from; none means the database itself."""
    webhook_allow_private: bool = False
    """Webhooks may also be at addresses of private networks, and in plain HTTP: for tests and one's own machine."""
    webhook_retry_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """Pause after the first attempt to deliver a webhook that failed; it doubles each time, up to an hour."""
    webhook_attempts: Annotated[int, Field(ge=1, le=50)] = 12
    """After how many attempts a message to a webhook is given up."""
    audit_client_secret: SecretStr | None = None
    """Secret under which addresses of clients are hashed, at least 32 characters; by default one that follows from
    `key_pepper`. Changing it makes every client a new one."""
    audit_retention_months: Annotated[int, Field(ge=1, le=600)] = 24
    """How long audit records are kept; whole months are dropped."""

    @field_validator("oidc_ca_file", "reports_database_url", "audit_client_secret", mode="before")
    @classmethod
    def _none_where_empty(cls, value: object) -> object:
        """Containers are given every variable, those that nobody has set as the empty string."""
        return None if value == "" else value

    @field_validator("audit_client_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value
