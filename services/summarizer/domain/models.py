"""Which models there are, and which one a request means."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.runtime.errors import FieldViolation, InvalidArgument, NotFound, PermissionDenied
from services.summarizer.domain.model_policy import ModelPolicy, NoPolicies, Policies
from services.summarizer.domain.ports import Abilities, Provider

_NAMES_SHOWN = 50
"""So many names are told in an error; the list of a provider may be long."""


NO_OCR = "none"
"""What a request says that wants no model to read scanned pages, whatever the deployment's default is."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served; `name` is `{provider}/{model}`, `short_name` what the provider calls it."""

    name: str
    short_name: str
    provider: Provider
    abilities: Abilities


class Models:
    """The models of all providers that are configured. `missing` are those that are not: the setting that each needs,
    by its name. `policies` are the tenants', and `ocr_providers` have the models that read pictures."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        default: str,
        fallbacks: Sequence[str] = (),
        missing: Mapping[str, str] | None = None,
        policies: Policies | None = None,
        ocr_providers: Mapping[str, Provider] | None = None,
        ocr_default: str = "",
    ) -> None:
        self._providers = dict(providers)
        self._default = default
        self._fallbacks = tuple(fallbacks)
        self._policies = policies or NoPolicies()
        self._ocr, self._ocr_default, self._settings = dict(ocr_providers or {}), ocr_default, dict(missing or {})
        self._missing = {name: setting for name, setting in (missing or {}).items() if name not in self._providers}

    def names(self) -> tuple[str, ...]:
        """All of them, as `{provider}/{model}`, in the order of the providers."""
        return tuple(f"{name}/{model}" for name, provider in self._providers.items() for model in provider.models())

    def resolve_reader(self, name: str, *, field: str = "options.ocr_model") -> Model | None:
        """The model that reads scanned pages; the deployment's default for an empty name, nobody for `none` and where
        there is no default. Raises InvalidArgument MODEL_UNKNOWN."""
        name = name or self._ocr_default
        if name in ("", NO_OCR):
            return None
        return Models(self._ocr, default=name, missing=self._settings).resolve(name, field=field)

    async def reader(self, tenant: str, name: str, *, field: str = "options.ocr_model") -> Model | None:
        """The same for a request of the tenant that names this one, or none: a default that the tenant does not allow
        is passed over. Raises as `chosen`."""
        model, policy = self.resolve_reader(name, field=field), await self._policies.of(tenant)
        if model is None or (not name and not policy.allows(model.name)):
            return None
        return _allowed(policy, model, field)

    def resolve(self, name: str, *, field: str = "options.model") -> Model:
        """The model of that name; the deployment's default for an empty one. Raises InvalidArgument MODEL_UNKNOWN."""
        name = name or self._default
        provider_name, _, short_name = name.partition("/")
        provider = self._providers.get(provider_name)
        if provider is None:
            raise self._unknown(name, field)
        try:
            abilities = provider.abilities(short_name)
        except NotFound as exc:
            raise self._unknown(name, field) from exc
        return Model(name, short_name, provider, abilities)

    async def chosen(self, tenant: str, name: str, *, field: str = "options.model") -> Model:
        """The model that answers a request of the tenant that names this one, or none. Raises InvalidArgument
        MODEL_UNKNOWN, PermissionDenied MODEL_NOT_ALLOWED, Unavailable."""
        return self._first(await self._policies.of(tenant), name, field)

    async def lineup(self, tenant: str, name: str, fallbacks: Sequence[str]) -> tuple[Model, ...]:
        """The model of that name and those that may answer in its place, in order, each once. What the request does not
        name the tenant's policy does, and what that does not the deployment. Raises as `chosen`."""
        policy = await self._policies.of(tenant)
        first = self._first(policy, name, "options.model")
        if fallbacks:
            field = "options.fallback_models"
            others = [_allowed(policy, self.resolve(other, field=field), field) for other in fallbacks]
        else:
            others = self._others(policy)
        return tuple({model.name: model for model in (first, *others)}.values())

    async def admitted(self, tenant: str, model: Model, *, field: str = "model") -> Model:
        """A model that the deployment chose, where the tenant allows it. Raises PermissionDenied MODEL_NOT_ALLOWED."""
        return _allowed(await self._policies.of(tenant), model, field)

    def check_entry(self, entry: str, *, field: str) -> None:
        """Raises InvalidArgument MODEL_UNKNOWN where an entry of a policy names no model and no provider's all."""
        provider_name, _, model = entry.partition("/")
        if model != "*":
            if not self._reads(provider_name, model):
                self.resolve(entry, field=field)
        elif provider_name not in self._providers:
            raise self._unknown(entry, field)

    def _reads(self, provider_name: str, model: str) -> bool:
        """Whether it is one that reads pictures, which a policy may allow too."""
        return provider_name in self._ocr and model in self._ocr[provider_name].models()

    def _first(self, policy: ModelPolicy, name: str, field: str) -> Model:
        return _allowed(policy, self.resolve(name or policy.default_model, field=field), field)

    def _others(self, policy: ModelPolicy) -> list[Model]:
        """Those that nobody asked for by name: one that is not allowed, or not served any more, is passed over."""
        others: list[Model] = []
        for name in policy.fallback_models or self._fallbacks:
            with contextlib.suppress(InvalidArgument):
                others += [self.resolve(name)] if policy.allows(name) else []
        return others

    def _unknown(self, name: str, field: str) -> InvalidArgument:
        known = ", ".join(self.names()[:_NAMES_SHOWN]) or NO_OCR
        provider_name = name.partition("/")[0]
        setting = self._missing.get(provider_name)
        why = f" {provider_name} models need {setting} when the service starts." if setting else ""
        return InvalidArgument(
            "MODEL_UNKNOWN",
            f"There is no model {name!r} here.{why} Choose one of: {known}.",
            fields=[FieldViolation(field, f"must be one of: {known}")],
        )


def _allowed(policy: ModelPolicy, model: Model, field: str) -> Model:
    if policy.allows(model.name):
        return model
    allowed = ", ".join(policy.allowed_models[:_NAMES_SHOWN])
    raise PermissionDenied(
        "MODEL_NOT_ALLOWED",
        f"This tenant does not let {model.name} see its documents. Name one of: {allowed}.",
        fields=[FieldViolation(field, f"must be one of: {allowed}")],
    )
