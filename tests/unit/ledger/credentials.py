"""Everything that says who somebody is, over the stores in memory, with clocks that tests move."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from services.ledger.adapters.memory import MemoryKeys, MemoryLedger, MemoryTenants
from services.ledger.adapters.memory_browser_sessions import MemoryBrowserSessions
from services.ledger.adapters.memory_certificates import MemoryCertificates
from services.ledger.adapters.memory_identity import MemoryUsers
from services.ledger.adapters.memory_providers import MemoryKeySource, MemoryProviders, MemoryStandingUsers
from services.ledger.adapters.memory_request_keys import MemoryRequestKeys
from services.ledger.adapters.memory_sessions import MemoryRevokedSessions, MemorySigningKeys
from services.ledger.domain.browser_sessions import BrowserSecrets, BrowserSessionCheck, BrowserSessions
from services.ledger.domain.client_certificates import CertificateCheck, ClientCertificates
from services.ledger.domain.fresh_cache import FreshCache
from services.ledger.domain.gate import Gate, Request
from services.ledger.domain.identity import Authenticator, Denial, Principal
from services.ledger.domain.identity_providers import IdentityProviders, OidcCheck
from services.ledger.domain.issuer_keys import IssuerKeys
from services.ledger.domain.key_cache import KeyCache
from services.ledger.domain.key_ring import KeyRing
from services.ledger.domain.keys import ApiKey, KeyHasher, KeyMint
from services.ledger.domain.ports import KeyStore
from services.ledger.domain.request_signatures import Message
from services.ledger.domain.sealing import Sealer
from services.ledger.domain.session_tokens import SessionTokens
from services.ledger.domain.sessions import SessionCheck, Sessions
from services.ledger.domain.signed_requests import RequestKeys, SignatureCheck
from services.ledger.domain.signing_keys import SigningKeys
from services.ledger.domain.values import Caller
from tests.unit.ledger.samples import NOW, FixedClock

SCOPES = frozenset({"documents.read", "usage.read", "keys.admin"})
ADMIN = Caller("acme", "apiKeys/admin", SCOPES)
PEPPER = "p" * 32
PERIOD = timedelta(days=1)


class Ticks:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Shared:
    """What replicas share: one database, one time."""

    def __init__(self) -> None:
        self.clock = FixedClock()
        self.ledger = MemoryLedger()
        self.signing_keys = MemorySigningKeys()
        self.revoked = MemoryRevokedSessions(self.clock)
        self.request_keys = MemoryRequestKeys(self.clock)
        self.certificates = MemoryCertificates()
        self.browsers = MemoryBrowserSessions(self.ledger, self.clock)
        self.providers = MemoryProviders(self.ledger)
        self.users = MemoryStandingUsers()
        self.source = MemoryKeySource()


@dataclass
class Replica:
    """One ledger. `changes_arrive` tells it what others did, as the listener would."""

    shared: Shared
    ring: KeyRing
    keys: KeyStore
    cache: KeyCache
    signing_keys: SigningKeys
    tokens: SessionTokens
    sessions: Sessions
    check: SessionCheck
    issuer_keys: IssuerKeys
    providers: IdentityProviders
    issuers: OidcCheck
    request_keys: RequestKeys
    signatures: SignatureCheck
    registered: ClientCertificates
    certificates: CertificateCheck
    browsers: BrowserSessions
    cookies: BrowserSessionCheck
    gate: Gate
    ticks: Ticks

    async def admit(self, credential: str) -> Principal | Denial:
        return await self.gate.admit(Request(credential, Message("GET", "localhost", "/v1/whoami", {})))

    async def made(self, *scopes: str, expires_s: float | None = None, tenant: str = "acme") -> tuple[ApiKey, Caller]:
        """A new key, and who calls with it."""
        expires = None if expires_s is None else self.shared.clock.now + timedelta(seconds=expires_s)
        maker = Caller(tenant, "bootstrap", SCOPES)
        key, _ = await self.ring.create(maker, "robot", frozenset(scopes) or SCOPES, expires)
        return key, Caller(tenant, key.name, key.scopes)

    def pass_time(self, **units: float) -> None:
        self.shared.clock.now += timedelta(**units)
        self.ticks.now_s += timedelta(**units).total_seconds()
        self.cache.heard(self.ticks())


async def open_replica(
    shared: Shared, *, pepper: str = PEPPER, issuer: str = "pagemesh", period: timedelta = PERIOD
) -> Replica:
    tenants = MemoryTenants(shared.ledger)
    for tenant in ("acme", "other"):
        await tenants.ensure(tenant, tenant, NOW)
    ticks, clock, keys, hasher = Ticks(), shared.clock, MemoryKeys(shared.ledger), KeyHasher(pepper)
    cache = KeyCache(max_keys=100, ttl_s=30, monotonic_s=ticks)
    cache.heard(ticks())

    def fresh(ttl_s: float = 30, *, lasting: bool = False) -> FreshCache[Any, Any]:
        return FreshCache(max_entries=100, ttl_s=ttl_s, monotonic_s=ticks, hearing=lambda: lasting or cache.hearing)

    authenticator = Authenticator(keys=keys, hasher=hasher, cache=cache, clock=clock, monotonic_s=ticks)
    signing_keys = _signing_keys(shared, ticks, pepper, period)
    tokens = SessionTokens(issuer=issuer, audience=issuer)
    check = SessionCheck(
        tokens=tokens,
        signing_keys=signing_keys,
        revoked=shared.revoked,
        authenticator=authenticator,
        verified=fresh(1800, lasting=True),
        standing=fresh(),
        clock=clock,
        monotonic_s=ticks,
    )
    issuers = _issuers(shared, issuer_keys := IssuerKeys(source=shared.source, monotonic_s=ticks), fresh, ticks)
    signatures = SignatureCheck(store=shared.request_keys, demanded=fresh(), clock=clock, monotonic_s=ticks)
    store = shared.certificates
    certificates = CertificateCheck(store=store, authenticator=authenticator, known=fresh(), monotonic_s=ticks)
    browsers, cookies = _browsers(shared, authenticator, issuers, pepper, ticks=ticks, known=fresh())
    gate = Gate(
        keys=authenticator,
        sessions=check,
        issuers=issuers,
        signatures=signatures,
        certificates=certificates,
        browsers=cookies,
    )
    return Replica(
        shared=shared,
        ring=KeyRing(
            keys=keys,
            users=MemoryUsers(shared.ledger),
            hasher=hasher,
            mint=KeyMint(),
            clock=clock,
            known_scopes=SCOPES,
        ),
        keys=keys,
        cache=cache,
        signing_keys=signing_keys,
        tokens=tokens,
        sessions=Sessions(tokens=tokens, signing_keys=signing_keys, keys=keys, revoked=shared.revoked, clock=clock),
        check=check,
        issuer_keys=issuer_keys,
        providers=IdentityProviders(
            providers=shared.providers, keys=issuer_keys, own_issuer="https://ledger.example.org", clock=clock
        ),
        issuers=issuers,
        request_keys=RequestKeys(store=shared.request_keys, keys=keys, clock=clock),
        signatures=signatures,
        registered=ClientCertificates(store=store, keys=keys, clock=clock),
        certificates=certificates,
        browsers=browsers,
        cookies=cookies,
        gate=gate,
        ticks=ticks,
    )


def _browsers(
    shared: Shared,
    authenticator: Authenticator,
    issuers: OidcCheck,
    pepper: str,
    *,
    ticks: Ticks,
    known: FreshCache[Any, Any],
) -> tuple[BrowserSessions, BrowserSessionCheck]:
    store, secrets, clock = shared.browsers, BrowserSecrets(pepper), shared.clock
    check = BrowserSessionCheck(
        store=store,
        secrets=secrets,
        authenticator=authenticator,
        issuers=issuers,
        known=known,
        clock=clock,
        monotonic_s=ticks,
    )
    keys = MemoryKeys(shared.ledger)
    return BrowserSessions(store=store, keys=keys, secrets=secrets, clock=clock, lifetime=timedelta(days=1)), check


def _issuers(shared: Shared, keys: IssuerKeys, fresh: Callable[[], FreshCache[Any, Any]], ticks: Ticks) -> OidcCheck:
    return OidcCheck(
        providers=shared.providers,
        users=shared.users,
        keys=keys,
        verified=fresh(),
        standing=fresh(),
        known_scopes=SCOPES,
        clock=shared.clock,
        monotonic_s=ticks,
    )


def _signing_keys(shared: Shared, ticks: Ticks, pepper: str, period: timedelta) -> SigningKeys:
    return SigningKeys(
        store=shared.signing_keys,
        sealer=Sealer(pepper, purpose="session signing keys"),
        clock=shared.clock,
        monotonic_s=ticks,
        period=period,
    )
