"""Client certificates in Postgres."""

from collections.abc import Sequence

from services.database.pool import Pool, single, translate
from services.ledger.adapters.postgres_rows import ACROSS_CREDENTIALS, BIND_TENANT, BOUND
from services.ledger.domain import refusals
from services.ledger.domain.client_certificates import ClientCertificate

_COLUMNS = "id, tenant, key_id, create_time"
_COUNT = "SELECT count(*) FROM ledger.client_certificates WHERE tenant = %s AND key_id = %s AND id <> %s"
_ADD = f"""
    INSERT INTO ledger.client_certificates ({_COLUMNS}) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING
"""  # noqa: S608
_GET = f"""
    SELECT found.* FROM {BOUND} (
        SELECT {_COLUMNS} FROM ledger.client_certificates WHERE tenant = bound.tenant AND id = %(id)s
    ) AS found
"""  # noqa: S608
_LIST = f"""
    SELECT found.* FROM {BOUND} (
        SELECT {_COLUMNS} FROM ledger.client_certificates
        WHERE tenant = bound.tenant AND id > %(after)s ORDER BY id LIMIT %(limit)s
    ) AS found
"""  # noqa: S608
_DELETE = "DELETE FROM ledger.client_certificates WHERE tenant = %s AND id = %s"
_KEY_OF = f"""
    SELECT found.* FROM {ACROSS_CREDENTIALS} (SELECT key_id FROM ledger.client_certificates WHERE id = %(id)s) AS found
"""  # noqa: S608


class PostgresCertificates:
    """CertificateStore. Replicas are told by a trigger; see PostgresAccessChanges."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, certificate: ClientCertificate) -> ClientCertificate:
        tenant, key_id, fingerprint = certificate.tenant, certificate.key_id, certificate.fingerprint
        with translate("add_certificate"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                cursor = await connection.execute(_COUNT, (tenant, key_id, fingerprint))
                row = await cursor.fetchone()
                if row is not None and row[0] >= refusals.MOST_CERTIFICATES:
                    raise refusals.too_many_certificates()
                await connection.execute(_ADD.encode(), (fingerprint, tenant, key_id, certificate.create_time))
        kept = await self.get(tenant, fingerprint)
        if kept is None or kept.key_id != key_id:
            raise refusals.certificate_in_use()
        return kept

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[ClientCertificate]:
        with translate("list_certificates"):
            async with single(self._pool) as connection:
                cursor = await connection.execute(_LIST.encode(), {"tenant": tenant, "after": after, "limit": limit})
                return [ClientCertificate(*row) for row in await cursor.fetchall()]

    async def get(self, tenant: str, fingerprint: str) -> ClientCertificate | None:
        with translate("find_certificate"):
            async with single(self._pool) as connection:
                cursor = await connection.execute(_GET.encode(), {"tenant": tenant, "id": fingerprint})
                row = await cursor.fetchone()
        return None if row is None else ClientCertificate(*row)

    async def delete(self, tenant: str, fingerprint: str) -> None:
        with translate("delete_certificate"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                await connection.execute(_DELETE, (tenant, fingerprint))

    async def key_of(self, fingerprint: str) -> str | None:
        with translate("find_certificate"):
            async with single(self._pool) as connection:
                cursor = await connection.execute(_KEY_OF.encode(), {"id": fingerprint})
                row = await cursor.fetchone()
        return None if row is None else row[0]
