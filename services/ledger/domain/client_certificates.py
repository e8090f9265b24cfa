"""TLS client certificates that stand for an API key.

The edge has checked that the mesh's CA signed a certificate and that its sender has the private key; what it stands for
is known here. It is registered over a connection that shows it: nobody registers what is not theirs.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.ledger.domain.fresh_cache import FreshCache
from services.ledger.domain.identity import Authenticator, Denial, Principal
from services.ledger.domain.ports import Clock, KeyStore
from services.ledger.domain.values import Caller
from services.runtime.errors import FailedPrecondition, NotFound

DEFAULT_PAGE = 50
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """`fingerprint` is the SHA-256 of its DER form in lower-case hex."""

    fingerprint: str
    tenant: str
    key_id: str
    create_time: datetime

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"clientCertificates/{self.fingerprint}"


class CertificateStore(Protocol):
    """The certificates of all tenants."""

    async def add(self, certificate: ClientCertificate) -> ClientCertificate:
        """Keeps it and answers it, or the one that is kept for the same key. AlreadyExists CERTIFICATE_IN_USE where it
        stands for another key, ResourceExhausted TOO_MANY_CERTIFICATES where the key has MOST_CERTIFICATES."""
        ...

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[ClientCertificate]:
        """Up to `limit` of the tenant's, after that fingerprint, in their order."""
        ...

    async def get(self, tenant: str, fingerprint: str) -> ClientCertificate | None:
        """The tenant's certificate of that fingerprint."""
        ...

    async def delete(self, tenant: str, fingerprint: str) -> None:
        """Drops it, where it is there."""
        ...

    async def key_of(self, fingerprint: str) -> str | None:
        """The id of the key that it stands for, of whatever tenant."""
        ...


class ClientCertificates:
    """Registers, tells and drops certificates."""

    def __init__(self, *, store: CertificateStore, keys: KeyStore, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    async def register(self, caller: Caller, fingerprint: str, *, within: str = "") -> ClientCertificate:
        """Has the certificate that the call shows stand for the key that it is made with; again, it answers the same.

        `within` is the session that the call is made in. Raises FailedPrecondition CERTIFICATE_NEEDED (none is shown)
        or KEY_NEEDED (the caller is no API key, or a session, which it would outlive), AlreadyExists
        CERTIFICATE_IN_USE, ResourceExhausted TOO_MANY_CERTIFICATES.
        """
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise FailedPrecondition(
                "CERTIFICATE_NEEDED",
                "The connection shows no client certificate. Show the one that is to be registered.",
            )
        kind, _, key_id = caller.actor.partition("/")
        stored = await self._keys.find(key_id) if kind == "apiKeys" and not within else None
        if stored is None or stored.key.tenant != caller.tenant:
            raise FailedPrecondition("KEY_NEEDED", "A certificate stands for an API key. Call with one.")
        return await self._store.add(ClientCertificate(fingerprint, caller.tenant, key_id, self._clock()))

    async def list(self, caller: Caller, page_size: int, page_token: str) -> tuple[Sequence[ClientCertificate], str]:
        """A part of the tenant's certificates, and the token for the next one, empty at the end."""
        size = page_size or DEFAULT_PAGE
        found = await self._store.list(caller.tenant, page_token, size + 1)
        return found[:size], found[size - 1].fingerprint if len(found) > size else ""

    async def delete(self, caller: Caller, fingerprint: str) -> None:
        """Has it stand for nothing: one of the caller's own key, or with `keys.admin` any of the tenant.

        Raises NotFound CERTIFICATE_NOT_FOUND.
        """
        found = await self._store.get(caller.tenant, fingerprint)
        if found is None or ("keys.admin" not in caller.scopes and caller.actor != f"apiKeys/{found.key_id}"):
            raise NotFound("CERTIFICATE_NOT_FOUND", "There is no such client certificate that is yours to drop.")
        await self._store.delete(caller.tenant, fingerprint)


class CertificateCheck:
    """Tells who shows a certificate."""

    def __init__(
        self,
        *,
        store: CertificateStore,
        authenticator: Authenticator,
        known: FreshCache[str, str],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._authenticator = authenticator
        self._known = known
        self._monotonic_s = monotonic_s

    async def check(self, fingerprint: str) -> Principal | Denial:
        """The key that it stands for."""
        key_id = self._known.get(fingerprint)
        if key_id is None:
            changes, now_s = self._known.changes, self._monotonic_s()
            key_id = await self._store.key_of(fingerprint)
            if key_id is None:
                return Denial.CERTIFICATE_UNKNOWN
            self._known.put(fingerprint, key_id, looked_up_s=now_s, changes=changes)
        return await self._authenticator.standing(key_id)

    def changed(self, kind: str, name: str) -> None:
        """A certificate was dropped."""
        if kind == "clientCertificates":
            self._known.drop(name)

    def missed(self) -> None:
        """Any may have been."""
        self._known.clear()
