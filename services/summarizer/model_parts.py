"""Which models there are and what tenants say of them, wired; part of `__main__`."""

import contextlib
import time
from dataclasses import dataclass

from services.runtime.config import WrongSettingError
from services.runtime.errors import InvalidArgument
from services.summarizer.adapters.model_registry import KNOWN, load_endpoints
from services.summarizer.adapters.postgres_policies import PostgresPolicies
from services.summarizer.config import SummarizerSettings
from services.summarizer.domain.models import Models
from services.summarizer.domain.policy_book import PolicyBook, PolicyCache
from services.summarizer.outside import Outside


@dataclass(frozen=True)
class ModelParts:
    """The models, and what their tenants choose among them by."""

    models: Models
    policies: PolicyBook


def models_of(settings: SummarizerSettings, world: Outside, *, stack: contextlib.AsyncExitStack) -> ModelParts:
    """The models; one that is named by a setting and not served is a wrong configuration, found at the start."""
    store = PostgresPolicies(world.pool)
    cache = PolicyCache(store, monotonic_s=time.monotonic)
    stack.push_async_callback(cache.close)
    missing = dict.fromkeys(load_endpoints(KNOWN), "a key in PAGEMESH_PROVIDER_KEYS")
    models = Models(
        world.providers,
        default=settings.default_model,
        fallbacks=settings.fallback_models,
        missing={"mistral": "PAGEMESH_MISTRAL_API_KEY", **missing},
        policies=cache,
        ocr_providers=world.ocr_providers,
        ocr_default=settings.ocr_model,
    )
    for setting, names in (("DEFAULT_MODEL", [""]), ("FALLBACK_MODELS", settings.fallback_models)):
        try:
            for name in names:
                models.resolve(name)
        except InvalidArgument as exc:
            raise WrongSettingError(f"PAGEMESH_{setting}: {exc.message}") from exc
    try:
        models.resolve_reader("")
    except InvalidArgument as exc:
        raise WrongSettingError(f"PAGEMESH_OCR_MODEL: {exc.message}") from exc
    return ModelParts(models, PolicyBook(store=store, cache=cache, models=models, monotonic_s=time.monotonic))
