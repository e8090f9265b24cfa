"""Which models a tenant lets answer, and who keeps that."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """A tenant's own choice. Empty `default_model` and `fallback_models` mean the deployment's, empty `allowed_models`
    all; an entry of it is `{provider}/{model}` or `{provider}/*`. `revision` counts the changes, from 0 for none."""

    default_model: str = ""
    fallback_models: tuple[str, ...] = ()
    allowed_models: tuple[str, ...] = ()
    revision: int = 0
    update_time: datetime | None = None

    def allows(self, name: str) -> bool:
        """Whether the model of that name may see anything of the tenant's."""
        if not self.allowed_models:
            return True
        # A model's own name may have slashes: the provider ends at the first.
        return name in self.allowed_models or f"{name.partition('/')[0]}/*" in self.allowed_models


EMPTY = ModelPolicy()


class PolicyStore(Protocol):
    """Policies, kept. Errors: Unavailable."""

    async def find(self, tenant: str) -> ModelPolicy:
        """The tenant's; EMPTY where none was ever set."""
        ...

    async def replace(self, tenant: str, policy: ModelPolicy, *, revision: int) -> ModelPolicy | None:
        """Keeps the policy as the next revision, where the one that is kept has that `revision`; else None."""
        ...


class Policies(Protocol):
    """What a use case asks. Errors: Unavailable."""

    async def of(self, tenant: str) -> ModelPolicy:
        """The tenant's policy, as it was a short time ago at the earliest."""
        ...


class NoPolicies:
    """Policies where no tenant has one."""

    async def of(self, tenant: str) -> ModelPolicy:
        """EMPTY."""
        return EMPTY
