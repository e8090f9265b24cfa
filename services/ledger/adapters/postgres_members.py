"""Projects and users in Postgres. That one is switched off is told by triggers; see PostgresAccessChanges."""

from collections.abc import Sequence
from datetime import datetime

from psycopg.errors import ForeignKeyViolation, UniqueViolation

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_acting import acting_for
from services.ledger.adapters.postgres_rows import Row
from services.ledger.domain import refusals
from services.ledger.domain.members import Changes, Project, User
from services.ledger.domain.roles import Role

_INSERT_PROJECT = """
    INSERT INTO ledger.projects (tenant, id, display_name, active, create_time, update_time)
    VALUES (%s, %s, %s, %s, %s, %s)
"""
_FIND_PROJECT = """
    SELECT tenant, id, display_name, active, create_time, update_time
    FROM ledger.projects WHERE tenant = %s AND id = %s
"""
LIST_PROJECTS = """
    SELECT tenant, id, display_name, active, create_time, update_time FROM ledger.projects
    WHERE tenant = %(tenant)s AND id > %(after)s ORDER BY id LIMIT %(limit)s
"""
_UPDATE_PROJECT = """
    UPDATE ledger.projects SET
        display_name = coalesce(%(display_name)s, display_name), active = coalesce(%(active)s, active),
        update_time = %(now)s
    WHERE tenant = %(tenant)s AND id = %(id)s
    RETURNING tenant, id, display_name, active, create_time, update_time
"""

_INSERT_USER = """
    INSERT INTO ledger.users (tenant, id, email, display_name, role, active, create_time, update_time)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_FIND_USER = """
    SELECT tenant, id, email, display_name, role, active, create_time, update_time
    FROM ledger.users WHERE tenant = %s AND id = %s
"""
_USER_WITH_EMAIL = """
    SELECT tenant, id, email, display_name, role, active, create_time, update_time
    FROM ledger.users WHERE tenant = %s AND email = %s
"""
LIST_USERS = """
    SELECT tenant, id, email, display_name, role, active, create_time, update_time FROM ledger.users
    WHERE tenant = %(tenant)s AND email > %(after)s ORDER BY email LIMIT %(limit)s
"""
# One after the other in a tenant: two who demote each other at the same time must not both find the other there.
LOCK_USERS = "SELECT pg_advisory_xact_lock(7102, hashtext(%s))"
# Nothing is changed where the user is an active admin, would be none any more, and is the last one.
_UPDATE_USER = """
    UPDATE ledger.users u SET
        display_name = coalesce(%(display_name)s, display_name), role = coalesce(%(role)s, role),
        active = coalesce(%(active)s, active), update_time = %(now)s
    WHERE tenant = %(tenant)s AND id = %(id)s AND (
        role <> 'admin' OR NOT active
        OR (coalesce(%(role)s, role) = 'admin' AND coalesce(%(active)s, active))
        OR EXISTS (SELECT FROM ledger.users o
                   WHERE o.tenant = %(tenant)s AND o.role = 'admin' AND o.active AND o.id <> u.id)
    )
    RETURNING tenant, id, email, display_name, role, active, create_time, update_time
"""


class PostgresProjects:
    """ProjectStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, project: Project) -> None:
        values = (
            project.tenant,
            project.project_id,
            project.display_name,
            project.active,
            project.create_time,
            project.update_time,
        )
        with translate("add_project"):
            try:
                async with acting_for(self._pool, project.tenant) as connection:
                    await connection.execute(_INSERT_PROJECT, values)
            except UniqueViolation as exc:
                raise refusals.project_exists() from exc
            except ForeignKeyViolation as exc:
                raise refusals.tenant_unknown() from exc

    async def find(self, tenant: str, project_id: str) -> Project | None:
        with translate("find_project"):
            async with acting_for(self._pool, tenant) as connection:
                cursor = await connection.execute(_FIND_PROJECT, (tenant, project_id))
                row = await cursor.fetchone()
        return None if row is None else Project(*row)

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[Project]:
        with translate("list_projects"):
            async with acting_for(self._pool, tenant) as connection:
                given = {"tenant": tenant, "after": after, "limit": limit}
                cursor = await connection.execute(LIST_PROJECTS, given)
                return [Project(*row) for row in await cursor.fetchall()]

    async def update(self, tenant: str, project_id: str, changes: Changes, now: datetime) -> Project | None:
        values = {
            "tenant": tenant,
            "id": project_id,
            "display_name": changes.display_name,
            "active": changes.active,
            "now": now,
        }
        with translate("update_project"):
            async with acting_for(self._pool, tenant) as connection:
                cursor = await connection.execute(_UPDATE_PROJECT, values)
                row = await cursor.fetchone()
        return None if row is None else Project(*row)


class PostgresUsers:
    """UserStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, user: User) -> None:
        values = (
            user.tenant,
            user.user_id,
            user.email,
            user.display_name,
            user.role.value,
            user.active,
            user.create_time,
            user.update_time,
        )
        with translate("add_user"):
            try:
                async with acting_for(self._pool, user.tenant) as connection:
                    await connection.execute(_INSERT_USER, values)
            except UniqueViolation as exc:
                raise refusals.user_exists() from exc
            except ForeignKeyViolation as exc:
                raise refusals.tenant_unknown() from exc

    async def find(self, tenant: str, user_id: str) -> User | None:
        with translate("find_user"):
            async with acting_for(self._pool, tenant) as connection:
                cursor = await connection.execute(_FIND_USER, (tenant, user_id))
                row = await cursor.fetchone()
        return None if row is None else _user(row)

    async def with_email(self, tenant: str, email: str) -> User | None:
        with translate("find_user_by_email"):
            async with acting_for(self._pool, tenant) as connection:
                cursor = await connection.execute(_USER_WITH_EMAIL, (tenant, email))
                row = await cursor.fetchone()
        return None if row is None else _user(row)

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[User]:
        with translate("list_users"):
            async with acting_for(self._pool, tenant) as connection:
                given = {"tenant": tenant, "after": after, "limit": limit}
                cursor = await connection.execute(LIST_USERS, given)
                return [_user(row) for row in await cursor.fetchall()]

    async def update(self, tenant: str, user_id: str, changes: Changes, now: datetime) -> User | None:
        values = {
            "tenant": tenant,
            "id": user_id,
            "display_name": changes.display_name,
            "role": None if changes.role is None else changes.role.value,
            "active": changes.active,
            "now": now,
        }
        with translate("update_user"):
            async with acting_for(self._pool, tenant) as connection:
                await connection.execute(LOCK_USERS, (tenant,))
                cursor = await connection.execute(_UPDATE_USER, values)
                row = await cursor.fetchone()
                if row is not None:
                    return _user(row)
                cursor = await connection.execute(_FIND_USER, (tenant, user_id))
                if await cursor.fetchone() is not None:
                    raise refusals.last_admin()
        return None


def _user(row: Row) -> User:
    tenant, user_id, email, display_name, role, active, created, updated = row
    return User(tenant, user_id, email, display_name, Role(role), active, created, updated)
