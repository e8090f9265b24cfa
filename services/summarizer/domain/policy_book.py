"""The use cases of policies of models: asked before each request, and changed now and then."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from services.runtime.errors import Aborted, FieldViolation, InvalidArgument, Unavailable
from services.summarizer.domain.model_policy import ModelPolicy, PolicyStore
from services.summarizer.domain.models import Models

FRESH_S = 10.0
"""A policy that was read so recently is believed."""
BORNE_S = 60.0
"""The same while the store cannot be asked: so long a change may go unseen at a replica, and no longer."""
MAX_TENANTS = 10_000
"""Policies that are remembered; the least recently used goes first."""
_TRIES = 3
FIELDS = ("default_model", "fallback_models", "allowed_models")


class PolicyCache:
    """Policies as they were FRESH_S ago at the earliest, or BORNE_S where the store is away. Any number of requests of
    a tenant that come at once ask the store once."""

    def __init__(self, store: PolicyStore, *, monotonic_s: Callable[[], float]) -> None:
        self._store = store
        self._monotonic_s = monotonic_s
        self._known: OrderedDict[str, tuple[ModelPolicy, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[ModelPolicy]] = {}

    async def of(self, tenant: str) -> ModelPolicy:
        """The tenant's. Raises Unavailable where it is not known and cannot be read."""
        known = self._known.get(tenant)
        if known is not None:
            self._known.move_to_end(tenant)
            if self._monotonic_s() - known[1] < FRESH_S:
                return known[0]
        try:
            return await self._ask(tenant)
        except Unavailable:
            if known is not None and self._monotonic_s() - known[1] < BORNE_S:
                return known[0]
            raise

    def learn(self, tenant: str, policy: ModelPolicy, read_s: float) -> None:
        """Remembers what was read or written at `read_s`, unless something newer is known."""
        known = self._known.get(tenant)
        if known is not None and known[0].revision > policy.revision:
            return
        self._known[tenant] = policy, read_s
        self._known.move_to_end(tenant)
        if len(self._known) > MAX_TENANTS:
            self._known.popitem(last=False)

    async def close(self) -> None:
        """Ends what is being asked."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    async def _ask(self, tenant: str) -> ModelPolicy:
        asking = self._asking.get(tenant)
        if asking is None:
            asking = self._asking[tenant] = asyncio.create_task(self._read(tenant))
            asking.add_done_callback(lambda task: self._asked(tenant, task))
        # Who gives up leaves the question to the others; the store's own time-outs end it.
        return await asyncio.shield(asking)

    def _asked(self, tenant: str, task: asyncio.Task[ModelPolicy]) -> None:
        self._asking.pop(tenant, None)
        if not task.cancelled():
            task.exception()  # known to those who wait, if any still does

    async def _read(self, tenant: str) -> ModelPolicy:
        begun_s = self._monotonic_s()
        policy = await self._store.find(tenant)
        self.learn(tenant, policy, begun_s)
        return policy


class PolicyBook:
    """Shows and changes policies."""

    def __init__(
        self, *, store: PolicyStore, cache: PolicyCache, models: Models, monotonic_s: Callable[[], float]
    ) -> None:
        self._store = store
        self._cache = cache
        self._models = models
        self._monotonic_s = monotonic_s

    async def get(self, tenant: str) -> ModelPolicy:
        """The policy as it is kept."""
        begun_s = self._monotonic_s()
        policy = await self._store.find(tenant)
        self._cache.learn(tenant, policy, begun_s)
        return policy

    async def update(self, tenant: str, changes: Mapping[str, str | Sequence[str]]) -> ModelPolicy:
        """The policy with those of FIELDS changed. Raises InvalidArgument MODEL_UNKNOWN and MODEL_NOT_ALLOWED, Aborted
        POLICY_CHANGED where others keep changing it, Unavailable."""
        values = {name: value if isinstance(value, str) else tuple(value) for name, value in changes.items()}
        for _ in range(_TRIES):
            begun_s = self._monotonic_s()
            old = await self._store.find(tenant)
            new = replace(old, **values)  # type: ignore[arg-type]  # FIELDS have these types
            if new == old:
                return old
            self._check(new, values)
            kept = await self._store.replace(tenant, new, revision=old.revision)
            if kept is not None:
                self._cache.learn(tenant, kept, begun_s)
                return kept
        raise Aborted("POLICY_CHANGED", "Somebody else is changing the policy. Look at it, and try again.")

    def _check(self, policy: ModelPolicy, changed: Mapping[str, object]) -> None:
        """What is not changed is not looked at again: a model may have gone since, and other changes must go on."""
        if "allowed_models" in changed:
            for entry in policy.allowed_models:
                self._models.check_entry(entry, field="model_policy.allowed_models")
        named = {"default_model": [policy.default_model] if policy.default_model else []}
        named["fallback_models"] = list(policy.fallback_models)
        for field, names in named.items():
            for name in names:
                if field in changed:
                    self._models.resolve(name, field=f"model_policy.{field}")
                if not policy.allows(name):
                    raise InvalidArgument(
                        "MODEL_NOT_ALLOWED",
                        f"{name} would not be among the allowed models. Allow it, or choose another one.",
                        fields=[FieldViolation(f"model_policy.{field}", "must be among allowed_models")],
                    )
