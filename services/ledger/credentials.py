"""Wires whatever says who somebody is: a part of the composition root in __main__.py."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from services.database.pool import Pool
from services.ledger.adapters.oidc_discovery import OidcDiscovery
from services.ledger.adapters.postgres_browser_sessions import PostgresBrowserSessions
from services.ledger.adapters.postgres_certificates import PostgresCertificates
from services.ledger.adapters.postgres_changes import PostgresAccessChanges
from services.ledger.adapters.postgres_identity import PostgresKeys
from services.ledger.adapters.postgres_providers import PostgresProviders, PostgresStandingUsers
from services.ledger.adapters.postgres_request_keys import PostgresRequestKeys
from services.ledger.adapters.postgres_sessions import PostgresRevokedSessions, PostgresSigningKeys
from services.ledger.adapters.session_timer import SessionTimer
from services.ledger.api import contract
from services.ledger.api.browser_session_servicer import BrowserSessionServicer
from services.ledger.api.credential_servicer import CredentialServicer
from services.ledger.config import LedgerSettings
from services.ledger.domain.browser_sessions import BrowserSecrets, BrowserSessionCheck, BrowserSessions
from services.ledger.domain.client_certificates import CertificateCheck, ClientCertificates
from services.ledger.domain.fresh_cache import FreshCache
from services.ledger.domain.gate import Gate
from services.ledger.domain.identity import Authenticator
from services.ledger.domain.identity_providers import IdentityProviders, OidcCheck
from services.ledger.domain.issuer_keys import IssuerKeys
from services.ledger.domain.key_cache import KeyCache
from services.ledger.domain.keys import KeyHasher
from services.ledger.domain.ports import Clock
from services.ledger.domain.sealing import Sealer
from services.ledger.domain.session_tokens import SessionTokens
from services.ledger.domain.sessions import SessionCheck, Sessions
from services.ledger.domain.signed_requests import RequestKeys, SignatureCheck
from services.ledger.domain.signing_keys import SESSION_LIFETIME, SigningKeys


@dataclass(frozen=True)
class Credentials:
    """Whatever says who somebody is."""

    gate: Gate
    servicer: CredentialServicer
    browser_servicer: BrowserSessionServicer
    changes: PostgresAccessChanges
    timer: SessionTimer
    issuer_keys: IssuerKeys


def open_credentials(settings: LedgerSettings, pool: Pool, *, clock: Clock) -> Credentials:
    """Keys, sessions, issuers, signatures and certificates, with what keeps them fresh."""
    pepper, now_s = settings.key_pepper.get_secret_value(), time.monotonic
    keys = PostgresKeys(pool)
    cache = KeyCache(max_keys=settings.key_cache_keys, ttl_s=settings.key_cache_ttl_s, monotonic_s=now_s)

    def fresh(ttl_s: float = settings.key_cache_ttl_s, *, lasting: bool = False) -> FreshCache[Any, Any]:
        entries = settings.key_cache_keys
        return FreshCache(max_entries=entries, ttl_s=ttl_s, monotonic_s=now_s, hearing=lambda: lasting or cache.hearing)

    authenticator = Authenticator(keys=keys, hasher=KeyHasher(pepper), cache=cache, clock=clock, monotonic_s=now_s)
    signing_keys = SigningKeys(
        store=PostgresSigningKeys(pool),
        sealer=Sealer(pepper, purpose="session signing keys"),
        clock=clock,
        monotonic_s=now_s,
        period=timedelta(seconds=settings.session_key_s),
    )
    tokens = SessionTokens(issuer=settings.session_issuer, audience=settings.session_issuer)
    revoked, request_keys = PostgresRevokedSessions(pool), PostgresRequestKeys(pool)
    check = SessionCheck(
        tokens=tokens,
        signing_keys=signing_keys,
        revoked=revoked,
        authenticator=authenticator,
        verified=fresh(SESSION_LIFETIME.total_seconds(), lasting=True),
        standing=fresh(),
        clock=clock,
        monotonic_s=now_s,
    )
    signatures = SignatureCheck(store=request_keys, demanded=fresh(), clock=clock, monotonic_s=now_s)
    issuers, providers, issuer_keys = _issuers(settings, pool, fresh, clock)
    dsn = settings.database_url.get_secret_value()
    store = PostgresCertificates(pool)
    shown = CertificateCheck(store=store, authenticator=authenticator, known=fresh(), monotonic_s=now_s)
    browser_store, browsers, browser_servicer = _browsers(
        settings, pool, fresh, authenticator=authenticator, issuers=issuers, clock=clock
    )
    followers = (check, signing_keys, issuers, signatures, shown, browsers)
    gate = Gate(
        keys=authenticator,
        sessions=check,
        issuers=issuers,
        signatures=signatures,
        certificates=shown,
        browsers=browsers,
    )
    return Credentials(
        gate=gate,
        servicer=CredentialServicer(
            sessions=Sessions(tokens=tokens, signing_keys=signing_keys, keys=keys, revoked=revoked, clock=clock),
            signing_keys=signing_keys,
            providers=providers,
            request_keys=RequestKeys(store=request_keys, keys=keys, clock=clock),
            certificates=ClientCertificates(store=store, keys=keys, clock=clock),
        ),
        browser_servicer=browser_servicer,
        changes=PostgresAccessChanges(dsn, cache=cache, monotonic_s=now_s, followers=followers),
        timer=SessionTimer(
            signing_keys, (revoked, request_keys, browser_store), interval_s=min(60.0, settings.session_key_s / 10)
        ),
        issuer_keys=issuer_keys,
    )


def _browsers(
    settings: LedgerSettings,
    pool: Pool,
    fresh: Callable[[], FreshCache[Any, Any]],
    *,
    authenticator: Authenticator,
    issuers: OidcCheck,
    clock: Clock,
) -> tuple[PostgresBrowserSessions, BrowserSessionCheck, BrowserSessionServicer]:
    store, secrets = PostgresBrowserSessions(pool), BrowserSecrets(settings.key_pepper.get_secret_value())
    check = BrowserSessionCheck(
        store=store,
        secrets=secrets,
        authenticator=authenticator,
        issuers=issuers,
        known=fresh(),
        clock=clock,
        monotonic_s=time.monotonic,
    )
    sessions = BrowserSessions(
        store=store,
        keys=PostgresKeys(pool),
        secrets=secrets,
        clock=clock,
        lifetime=timedelta(seconds=settings.browser_session_s),
    )
    return store, check, BrowserSessionServicer(sessions)


def _issuers(
    settings: LedgerSettings, pool: Pool, fresh: Callable[[], FreshCache[Any, Any]], clock: Clock
) -> tuple[OidcCheck, IdentityProviders, IssuerKeys]:
    providers = PostgresProviders(pool)
    source = OidcDiscovery(private_addresses=settings.oidc_private_addresses, ca_file=settings.oidc_ca_file)
    keys = IssuerKeys(source=source, monotonic_s=time.monotonic)
    check = OidcCheck(
        providers=providers,
        users=PostgresStandingUsers(pool),
        keys=keys,
        verified=fresh(),
        standing=fresh(),
        known_scopes=contract.scopes(),
        clock=clock,
        monotonic_s=time.monotonic,
    )
    own = settings.session_issuer
    return check, IdentityProviders(providers=providers, keys=keys, own_issuer=own, clock=clock), keys
