"""Leases, receipts and the lifecycle of documents in Postgres.

Whoever changes a document locks its row before those of its leases, so that nobody waits for each other.
"""

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from typing import Any

from services.database.pool import Pool, translate
from services.extractor.adapters.postgres import Connection, bound
from services.extractor.domain.documents import Cursor
from services.extractor.domain.keeping import Backlog, Erasure, Lease
from services.extractor.domain.receipts import Cause, DeletionReceipt

# FOR SHARE: waits for whoever hides the document at the moment, and finds it gone then.
_HOLD = """
    INSERT INTO extractor.document_leases (tenant, document_id, lease_id, expire_time)
    SELECT tenant, id, %(lease)s, %(until)s FROM extractor.documents
    WHERE tenant = %(tenant)s AND id = %(document)s AND erase_time IS NULL
    FOR SHARE
    ON CONFLICT (tenant, document_id, lease_id) DO UPDATE SET expire_time = excluded.expire_time
    RETURNING true
"""
_PROCESSED = """
    UPDATE extractor.documents SET process_time = %(at)s, expire_time = least(expire_time, %(at)s)
    WHERE tenant = %(tenant)s AND id = %(document)s AND erase_time IS NULL AND retention = 'EPHEMERAL'
"""
_RELEASE = """
    DELETE FROM extractor.document_leases
    WHERE tenant = %(tenant)s AND document_id = %(document)s AND lease_id = %(lease)s
"""
_HIDE_PROCESSED = """
    UPDATE extractor.documents AS d SET erase_time = %(at)s, erase_cause = 'PROCESSED', erase_actor = ''
    WHERE d.tenant = %(tenant)s AND d.id = %(document)s AND d.erase_time IS NULL AND d.process_time IS NOT NULL
      AND NOT EXISTS (SELECT FROM extractor.document_leases AS l
                      WHERE l.tenant = d.tenant AND l.document_id = d.id AND l.expire_time > %(at)s)
"""
# Locked first and looked at again: a lease that was taken in between is seen by the second statement.
_EXPIRED = """
    SELECT d.tenant, d.id FROM extractor.documents AS d
    WHERE d.erase_time IS NULL AND d.expire_time <= %(now)s
      AND NOT EXISTS (SELECT FROM extractor.document_leases AS l
                      WHERE l.tenant = d.tenant AND l.document_id = d.id AND l.expire_time > %(now)s)
    ORDER BY d.expire_time
    LIMIT %(limit)s
    FOR UPDATE OF d SKIP LOCKED
"""
_HIDE_EXPIRED = """
    UPDATE extractor.documents AS d
    SET erase_time = %(now)s, erase_actor = '',
        erase_cause = CASE WHEN d.process_time IS NULL THEN 'EXPIRED' ELSE 'PROCESSED' END
    FROM unnest(%(tenants)s::text[], %(ids)s::text[]) AS due (tenant, id)
    WHERE d.tenant = due.tenant AND d.id = due.id AND d.erase_time IS NULL
      AND NOT EXISTS (SELECT FROM extractor.document_leases AS l
                      WHERE l.tenant = d.tenant AND l.document_id = d.id AND l.expire_time > %(now)s)
"""
# SKIP LOCKED lets several replicas take different rows; the claim keeps them apart afterwards.
_TAKE = """
    UPDATE extractor.documents AS d SET claim_time = %(until)s
    FROM (
        SELECT tenant, id FROM extractor.documents
        WHERE erase_time <= %(now)s AND (claim_time IS NULL OR claim_time <= %(now)s)
        ORDER BY erase_time
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ) AS due
    WHERE d.tenant = due.tenant AND d.id = due.id
    RETURNING d.tenant, d.id
"""
_BACKLOG = """
    SELECT count(*), coalesce(extract(epoch FROM %(now)s - min(since)), 0) FROM (
        SELECT erase_time AS since FROM extractor.documents WHERE erase_time <= %(now)s
        UNION ALL
        SELECT expire_time FROM extractor.documents WHERE erase_time IS NULL AND expire_time <= %(now)s
    ) AS due
"""
_FORGET_LEASES = """
    DELETE FROM extractor.document_leases WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM extractor.document_leases WHERE expire_time <= %(now)s LIMIT %(limit)s
    ))
"""
_FORGET_RECEIPTS = """
    DELETE FROM extractor.deletion_receipts WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM extractor.deletion_receipts
        WHERE delete_time <= %(now)s::timestamptz - interval '7 years' LIMIT %(limit)s
    ))
"""
_RECEIPTS = """
    SELECT id, tenant, document_id, sha256, size_bytes, objects_deleted, pages_deleted, index_entries_deleted,
           results_deleted, cause, delete_time, actor
    FROM extractor.deletion_receipts
    WHERE tenant = %(tenant)s
      AND (%(time)s::timestamptz IS NULL OR (delete_time, id) < (%(time)s, %(id)s))
    ORDER BY delete_time DESC, id DESC
    LIMIT %(limit)s
"""
# Row security shows a transaction that says the time what is due by then, of all tenants, and nothing else.
_ACT_AT = "SELECT set_config('pagemesh.lifecycle_time', %s, true)"


class PostgresLifecycle:
    """Implements the ports `Leases`, `Lifecycle` and `Receipts`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def hold(self, lease: Lease, *, until: dt.datetime) -> bool:
        """See the port."""
        with translate("hold_document"):
            async with bound(self._pool, lease.tenant) as connection:
                values = {**_key(lease), "until": until}
                return await (await connection.execute(_HOLD, values)).fetchone() is not None

    async def release(self, lease: Lease, *, processed_at: dt.datetime | None) -> None:
        """See the port."""
        values = {**_key(lease), "at": processed_at}
        with translate("release_document"):
            async with bound(self._pool, lease.tenant) as connection:
                if processed_at is not None:
                    await connection.execute(_PROCESSED, values)
                await connection.execute(_RELEASE, values)
                if processed_at is not None:
                    await connection.execute(_HIDE_PROCESSED, values)

    async def expire(self, *, now: dt.datetime, limit: int) -> int:
        """See the port."""
        with translate("expire_documents"):
            async with self._acting(now) as connection:
                rows = await (await connection.execute(_EXPIRED, {"now": now, "limit": limit})).fetchall()
                due = {"now": now, "tenants": [row[0] for row in rows], "ids": [row[1] for row in rows]}
                return (await connection.execute(_HIDE_EXPIRED, due)).rowcount if rows else 0

    async def take_erasures(self, *, now: dt.datetime, until: dt.datetime, limit: int) -> Sequence[Erasure]:
        """See the port."""
        with translate("take_erasures"):
            async with self._acting(now) as connection:
                values = {"now": now, "until": until, "limit": limit}
                rows = await (await connection.execute(_TAKE, values)).fetchall()
        return [Erasure(tenant, bare_id) for tenant, bare_id in rows]

    async def backlog(self, *, now: dt.datetime) -> Backlog:
        """See the port."""
        with translate("count_erasures"):
            async with self._acting(now) as connection:
                row = await (await connection.execute(_BACKLOG, {"now": now})).fetchone()
        assert row is not None
        return Backlog(waiting=row[0], oldest_age_s=float(row[1]))

    async def forget(self, *, now: dt.datetime, limit: int) -> int:
        """See the port."""
        values = {"now": now, "limit": limit}
        with translate("forget_receipts"):
            async with self._acting(now) as connection:
                leases = (await connection.execute(_FORGET_LEASES, values)).rowcount
                receipts = (await connection.execute(_FORGET_RECEIPTS, values)).rowcount
        return max(leases, receipts)

    async def receipts(self, tenant: str, *, limit: int, after: Cursor | None) -> Sequence[DeletionReceipt]:
        """See the port."""
        values = {
            "tenant": tenant,
            "limit": limit,
            "time": after.create_time if after else None,
            "id": after.id if after else None,
        }
        with translate("list_receipts"):
            async with bound(self._pool, tenant) as connection:
                rows = await (await connection.execute(_RECEIPTS, values)).fetchall()
        return [_receipt(row) for row in rows]

    @contextlib.asynccontextmanager
    async def _acting(self, now: dt.datetime) -> AsyncIterator[Connection]:
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_ACT_AT, (now.isoformat(),))
            yield connection


def _key(lease: Lease) -> dict[str, Any]:
    return {"tenant": lease.tenant, "document": lease.document_id, "lease": lease.id}


def _receipt(row: tuple[Any, ...]) -> DeletionReceipt:
    *columns, cause, delete_time, actor = row
    values = (*columns, Cause(cause), delete_time.astimezone(dt.UTC), actor)
    return DeletionReceipt(*values)
