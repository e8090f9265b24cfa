"""Policies of models in Postgres. Row-level security shows each transaction its own tenant's only."""

from typing import Any

from services.database.pool import Pool, translate
from services.summarizer.domain.model_policy import EMPTY, ModelPolicy

_COLUMNS = "default_model, fallback_models, allowed_models, revision, update_time"
FIND = f"SELECT {_COLUMNS} FROM summarizer.model_policies WHERE tenant = %(tenant)s"  # noqa: S608 - of constants
_FIRST = f"""
    INSERT INTO summarizer.model_policies (tenant, default_model, fallback_models, allowed_models, revision)
    VALUES (%(tenant)s, %(default_model)s, %(fallback_models)s, %(allowed_models)s, 1)
    ON CONFLICT (tenant) DO NOTHING
    RETURNING {_COLUMNS}
"""  # noqa: S608 - put together of constants
_NEXT = f"""
    UPDATE summarizer.model_policies
    SET default_model = %(default_model)s, fallback_models = %(fallback_models)s, allowed_models = %(allowed_models)s,
        revision = revision + 1, update_time = now()
    WHERE tenant = %(tenant)s AND revision = %(revision)s
    RETURNING {_COLUMNS}
"""  # noqa: S608 - put together of constants
_AS_TENANT = "SELECT set_config('pagemesh.tenant', %(tenant)s, true)"


class PostgresPolicies:
    """PolicyStore on Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, tenant: str) -> ModelPolicy:
        """The tenant's; EMPTY where none was ever set."""
        return await self._one("policies.find", FIND, {"tenant": tenant}) or EMPTY

    async def replace(self, tenant: str, policy: ModelPolicy, *, revision: int) -> ModelPolicy | None:
        """Keeps it where nobody was faster."""
        row = {
            "tenant": tenant,
            "default_model": policy.default_model,
            "fallback_models": list(policy.fallback_models),
            "allowed_models": list(policy.allowed_models),
            "revision": revision,
        }
        return await self._one("policies.replace", _NEXT if revision else _FIRST, row)

    async def _one(self, operation: str, query: str, row: dict[str, Any]) -> ModelPolicy | None:
        with translate(operation):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_AS_TENANT, row)
                found = await (await connection.execute(query, row)).fetchone()
        if found is None:
            return None
        default_model, fallbacks, allowed, revision, update_time = found
        return ModelPolicy(default_model, tuple(fallbacks), tuple(allowed), revision, update_time)
