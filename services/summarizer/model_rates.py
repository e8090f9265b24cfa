"""What models may be sent in a minute, wired; part of `__main__`."""

import hashlib
from collections.abc import Sequence

import redis.asyncio as redis
from pydantic import SecretStr

from services.runtime.breaker import Breaker
from services.runtime.config import WrongSettingError
from services.summarizer.adapters.acting import rank, remaining_s
from services.summarizer.adapters.model_registry import Endpoint
from services.summarizer.adapters.redis_rates import RedisRates
from services.summarizer.adapters.tolls import Tolls
from services.summarizer.config import SummarizerSettings
from services.summarizer.domain.rates import NO_LIMIT, Rate

_REST_S = 5.0


def tolls_of(settings: SummarizerSettings, endpoints: Sequence[Endpoint], client: "redis.Redis") -> Tolls:
    """The limits of all models: a setting's for the model, a setting's for its provider, or the registry's. Raises
    WrongSettingError for a provider that is not there."""
    named = settings.model_rates
    there = {endpoint.name for endpoint in endpoints} | ({"mistral"} if settings.mistral_api_key else set())
    for name in named:
        if name.partition("/")[0] not in there:
            have = ", ".join(sorted(there)) or "none that sends a bill"
            raise WrongSettingError(f"PAGEMESH_MODEL_RATES: {name} is of no provider that is there; there are {have}")
    known = {f"{endpoint.name}/{name}": model.rate for endpoint in endpoints for name, model in endpoint.models.items()}

    def limit(name: str) -> Rate:
        of_provider = named.get(f"{name.partition('/')[0]}/*", known.get(name, NO_LIMIT))
        return named.get(name, of_provider)

    accounts = {endpoint.name: _account(endpoint.url, settings.provider_keys[endpoint.name]) for endpoint in endpoints}
    if settings.mistral_api_key is not None:
        accounts["mistral"] = _account(str(settings.mistral_url), settings.mistral_api_key)
    rates = RedisRates(client, breaker=Breaker("redis_rates", reset_timeout_s=_REST_S))
    return Tolls(
        rates,
        limit,
        lambda name: f"{accounts.get(name.partition('/')[0], '')}:{name}",
        remaining_s=remaining_s,
        rank=rank,
    )


def _account(url: str, key: SecretStr) -> str:
    """Limits are those of an account: deployments with different keys may share a Redis."""
    return hashlib.sha256(f"{url}\n{key.get_secret_value()}".encode()).hexdigest()[:12]
