"""Identity providers, and the users that their tokens name, in Postgres."""

from collections.abc import Sequence

from psycopg.errors import ForeignKeyViolation, UniqueViolation

from services.database.pool import Pool, single, translate
from services.ledger.adapters.postgres_rows import ACROSS_CREDENTIALS, BIND_TENANT, BOUND
from services.ledger.domain import refusals
from services.ledger.domain.identity_providers import IdentityProvider, StandingUser
from services.ledger.domain.plans import Plan
from services.ledger.domain.roles import Role

_COLUMNS = "id, tenant, display_name, issuer, audience, create_time"
_COUNT = "SELECT count(*) FROM ledger.identity_providers WHERE tenant = %s"
_ADD = f"INSERT INTO ledger.identity_providers ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s)"  # noqa: S608
_LIST = f"""
    SELECT found.* FROM {BOUND} (
        SELECT {_COLUMNS} FROM ledger.identity_providers
        WHERE tenant = bound.tenant AND id > %(after)s ORDER BY id LIMIT %(limit)s
    ) AS found
"""  # noqa: S608
_DELETE = "DELETE FROM ledger.identity_providers WHERE tenant = %s AND id = %s"
_FIND = f"""
    SELECT found.* FROM {ACROSS_CREDENTIALS} (
        SELECT {_COLUMNS} FROM ledger.identity_providers
        WHERE issuer = %(issuer)s AND audience = ANY(%(audiences)s) LIMIT 2
    ) AS found
"""  # noqa: S608
_USERS = f"""
    SELECT found.* FROM {BOUND} (
        SELECT u.id, u.role, u.active, t.active AS tenant_active, q.id AS plan, q.uploads_per_hour, q.calls_per_hour,
               q.max_upload_bytes, q.max_concurrent_jobs
        FROM ledger.users u JOIN ledger.tenants t ON t.id = u.tenant JOIN ledger.plans q ON q.id = t.plan
        WHERE u.tenant = bound.tenant AND {{column}} = %(value)s
    ) AS found
"""  # noqa: S608
_USER_BY_EMAIL = _USERS.format(column="u.email")
_USER_BY_ID = _USERS.format(column="u.id")


class PostgresProviders:
    """ProviderStore. Replicas are told by triggers; see PostgresAccessChanges."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, provider: IdentityProvider) -> None:
        values = (
            provider.provider_id,
            provider.tenant,
            provider.display_name,
            provider.issuer,
            provider.audience,
            provider.create_time,
        )
        with translate("add_provider"):
            try:
                async with self._pool.connection() as connection, connection.transaction():
                    await connection.execute(BIND_TENANT, (provider.tenant,))
                    cursor = await connection.execute(_COUNT, (provider.tenant,))
                    row = await cursor.fetchone()
                    if row is not None and row[0] >= refusals.MOST_PROVIDERS:
                        raise refusals.too_many_providers()
                    await connection.execute(_ADD.encode(), values)
            except UniqueViolation as exc:
                raise refusals.provider_exists() from exc
            except ForeignKeyViolation as exc:
                raise refusals.tenant_unknown() from exc

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[IdentityProvider]:
        with translate("list_providers"):
            async with single(self._pool) as connection:
                cursor = await connection.execute(_LIST.encode(), {"tenant": tenant, "after": after, "limit": limit})
                return [IdentityProvider(*row) for row in await cursor.fetchall()]

    async def delete(self, tenant: str, provider_id: str) -> bool:
        with translate("delete_provider"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                cursor = await connection.execute(_DELETE, (tenant, provider_id))
                return cursor.rowcount == 1

    async def find(self, issuer: str, audiences: Sequence[str]) -> Sequence[IdentityProvider]:
        with translate("find_provider"):
            async with single(self._pool) as connection:
                values = {"issuer": issuer, "audiences": list(audiences)}
                cursor = await connection.execute(_FIND.encode(), values)
                return [IdentityProvider(*row) for row in await cursor.fetchall()]


class PostgresStandingUsers:
    """StandingUserStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def by_email(self, tenant: str, email: str) -> StandingUser | None:
        return await self._find(_USER_BY_EMAIL, tenant, email)

    async def by_id(self, tenant: str, user_id: str) -> StandingUser | None:
        return await self._find(_USER_BY_ID, tenant, user_id)

    async def _find(self, statement: str, tenant: str, value: str) -> StandingUser | None:
        with translate("find_user"):
            async with single(self._pool) as connection:
                cursor = await connection.execute(statement.encode(), {"tenant": tenant, "value": value})
                row = await cursor.fetchone()
        if row is None:
            return None
        user_id, role, active, tenant_active, *plan = row
        return StandingUser(user_id, Role(role), active, tenant_active, Plan(*plan))
