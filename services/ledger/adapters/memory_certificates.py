"""Client certificates in memory."""

from collections.abc import Sequence

from services.ledger.domain import refusals
from services.ledger.domain.client_certificates import ClientCertificate


class MemoryCertificates:
    """CertificateStore."""

    def __init__(self) -> None:
        self._kept: dict[str, ClientCertificate] = {}

    async def add(self, certificate: ClientCertificate) -> ClientCertificate:
        others = [c for c in self._kept.values() if c.fingerprint != certificate.fingerprint]
        if sum(c.key_id == certificate.key_id for c in others) >= refusals.MOST_CERTIFICATES:
            raise refusals.too_many_certificates()
        kept = self._kept.setdefault(certificate.fingerprint, certificate)
        if kept.key_id != certificate.key_id:
            raise refusals.certificate_in_use()
        return kept

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[ClientCertificate]:
        found = [c for c in self._kept.values() if c.tenant == tenant and c.fingerprint > after]
        return sorted(found, key=lambda c: c.fingerprint)[:limit]

    async def get(self, tenant: str, fingerprint: str) -> ClientCertificate | None:
        found = self._kept.get(fingerprint)
        return found if found is not None and found.tenant == tenant else None

    async def delete(self, tenant: str, fingerprint: str) -> None:
        if await self.get(tenant, fingerprint) is not None:
            del self._kept[fingerprint]

    async def key_of(self, fingerprint: str) -> str | None:
        found = self._kept.get(fingerprint)
        return None if found is None else found.key_id
