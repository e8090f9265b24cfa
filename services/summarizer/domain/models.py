"""Which models there are, and which one a request means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.runtime.errors import FieldViolation, InvalidArgument, NotFound
from services.summarizer.domain.ports import Abilities, Provider

_NAMES_SHOWN = 50
"""So many names are told in an error; the list of a provider may be long."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served; `name` is `{provider}/{model}`, `short_name` what the provider calls it."""

    name: str
    short_name: str
    provider: Provider
    abilities: Abilities


class Models:
    """The models of all providers that are configured. `missing` are those that are not: the setting that each needs,
    by its name."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        default: str,
        fallbacks: Sequence[str] = (),
        missing: Mapping[str, str] | None = None,
    ) -> None:
        self._providers = dict(providers)
        self._default = default
        self._fallbacks = tuple(fallbacks)
        self._missing = {name: setting for name, setting in (missing or {}).items() if name not in self._providers}

    def names(self) -> tuple[str, ...]:
        """All of them, as `{provider}/{model}`, in the order of the providers."""
        return tuple(f"{name}/{model}" for name, provider in self._providers.items() for model in provider.models())

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

    def lineup(self, name: str, fallbacks: Sequence[str]) -> tuple[Model, ...]:
        """The model of that name and those that may answer in its place, in order, each once; the deployment's own
        where none are named. Raises InvalidArgument MODEL_UNKNOWN."""
        first = self.resolve(name)
        others = [self.resolve(other, field="options.fallback_models") for other in fallbacks or self._fallbacks]
        return tuple({model.name: model for model in (first, *others)}.values())

    def _unknown(self, name: str, field: str) -> InvalidArgument:
        known = ", ".join(self.names()[:_NAMES_SHOWN])
        provider_name = name.partition("/")[0]
        setting = self._missing.get(provider_name)
        why = f" {provider_name} models need {setting} when the service starts." if setting else ""
        return InvalidArgument(
            "MODEL_UNKNOWN",
            f"There is no model {name!r} here.{why} Choose one of: {known}.",
            fields=[FieldViolation(field, f"must be one of: {known}")],
        )
