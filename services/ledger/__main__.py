"""The ledger: `serve` (the default), `migrate`, `bootstrap`, `holds`."""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pagemesh.ledger.v1.credential_service_pb2_grpc import add_CredentialServiceServicer_to_server
from pagemesh.ledger.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from pagemesh.ledger.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from services.database.migrate import migrate
from services.database.pool import Pool, open_pool, ping
from services.ledger.adapters.expiry_timer import ExpiryTimer
from services.ledger.adapters.oidc_discovery import OidcDiscovery
from services.ledger.adapters.postgres_certificates import PostgresCertificates
from services.ledger.adapters.postgres_changes import PostgresAccessChanges
from services.ledger.adapters.postgres_holds import PostgresHolds
from services.ledger.adapters.postgres_identity import PostgresKeys, PostgresTenants
from services.ledger.adapters.postgres_prices import PostgresPrices
from services.ledger.adapters.postgres_providers import PostgresProviders, PostgresUsers
from services.ledger.adapters.postgres_request_keys import PostgresRequestKeys
from services.ledger.adapters.postgres_sessions import PostgresRevokedSessions, PostgresSigningKeys
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.adapters.session_timer import SessionTimer
from services.ledger.api import command_line, contract
from services.ledger.api.check_servicer import CheckServicer
from services.ledger.api.credential_servicer import CredentialServicer
from services.ledger.api.identity_servicer import IdentityServicer
from services.ledger.api.ledger_servicer import LedgerServicer
from services.ledger.config import BootstrapSettings, LedgerSettings
from services.ledger.domain.books import Books
from services.ledger.domain.client_certificates import CertificateCheck, ClientCertificates
from services.ledger.domain.fresh_cache import FreshCache
from services.ledger.domain.gate import Gate
from services.ledger.domain.identity import Authenticator, KeyRing
from services.ledger.domain.identity_providers import IdentityProviders, OidcCheck
from services.ledger.domain.issuer_keys import IssuerKeys
from services.ledger.domain.key_cache import KeyCache
from services.ledger.domain.keys import KeyHasher, KeyMint
from services.ledger.domain.onboarding import Onboarding
from services.ledger.domain.reconciliation import Reconciliation
from services.ledger.domain.sealing import Sealer
from services.ledger.domain.session_tokens import SessionTokens
from services.ledger.domain.sessions import SessionCheck, Sessions
from services.ledger.domain.signed_requests import RequestKeys, SignatureCheck
from services.ledger.domain.signing_keys import SESSION_LIFETIME, SigningKeys
from services.ledger.domain.values import Tokens
from services.runtime.command import run
from services.runtime.config import DatabaseSettings, load_settings
from services.runtime.health import Health
from services.runtime.server import MeshServer
from xdsapi.envoy.service.auth.v3.external_auth_pb2_grpc import add_AuthorizationServicer_to_server

_MIGRATIONS = Path(__file__).parent / "migrations"
_COMMAND_TIMEOUT_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; answers the exit code."""
    options = command_line.parser(__doc__).parse_args(arguments)
    match options.command:
        case "migrate":
            database = load_settings(DatabaseSettings)
            migrate(database.database_url.get_secret_value(), directory=_MIGRATIONS, schema="ledger")
        case "bootstrap":
            return run(_bootstrap(load_settings(BootstrapSettings), options), name="services.ledger")
        case "holds":
            return run(_holds(load_settings(DatabaseSettings), options), name="services.ledger")
        case _:
            return run(_serve(load_settings(LedgerSettings)), name="services.ledger")
    return 0


def _now() -> datetime:
    return datetime.now(UTC)


def _key_ring(pool: Pool, hasher: KeyHasher) -> KeyRing:
    return KeyRing(keys=PostgresKeys(pool), hasher=hasher, mint=KeyMint(), clock=_now, known_scopes=contract.scopes())


def _books(pool: Pool) -> Books:
    prices = PostgresPrices(pool, monotonic_s=time.monotonic)
    return Books(holds=PostgresHolds(pool), usage=PostgresUsage(pool), prices=prices, clock=_now)


@contextlib.asynccontextmanager
async def _command_pool(settings: DatabaseSettings) -> AsyncIterator[Pool]:
    """The database for one command, which has _COMMAND_TIMEOUT_S."""
    pool = await open_pool(settings.database_url.get_secret_value(), name="ledger-command", max_size=2)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(_COMMAND_TIMEOUT_S):
        stack.push_async_callback(pool.close)
        yield pool


async def _bootstrap(settings: BootstrapSettings, options: argparse.Namespace) -> None:
    async with _command_pool(settings) as pool:
        keys = _key_ring(pool, KeyHasher(settings.key_pepper.get_secret_value()))
        onboarding = Onboarding(tenants=PostgresTenants(pool), keys=keys, clock=_now, scopes=contract.scopes())
        tenant, name, budget = options.tenant, options.display_name, options.hard_budget_micros
        if options.no_key:
            await onboarding.prepare(tenant, name, hard_budget_micros=budget)
            told = command_line.tenant_line(tenant)
        else:
            told = command_line.key_line(*await onboarding.admit(tenant, name, hard_budget_micros=budget))
    print(told)


async def _holds(settings: DatabaseSettings, options: argparse.Namespace) -> None:
    async with _command_pool(settings) as pool:
        reconciliation = Reconciliation(holds=PostgresHolds(pool), books=_books(pool))
        match options.action:
            case "settle":
                used = Tokens(options.input_tokens, options.output_tokens)
                record = await reconciliation.settle(
                    options.tenant, options.hold_id, used, request_id=options.request_id
                )
                told = [command_line.record_line(record)]
            case "release":
                told = [command_line.hold_line(await reconciliation.release(options.tenant, options.hold_id))]
            case _:
                holds = await reconciliation.unanswered(options.tenant, limit=options.limit)
                told = [command_line.hold_line(hold) for hold in holds]
    for line in told:
        print(line)


@dataclass(frozen=True)
class _Credentials:
    """Whatever says who somebody is."""

    gate: Gate
    servicer: CredentialServicer
    changes: PostgresAccessChanges
    timer: SessionTimer
    issuer_keys: IssuerKeys


def _credentials(settings: LedgerSettings, pool: Pool) -> _Credentials:
    pepper, now_s = settings.key_pepper.get_secret_value(), time.monotonic
    keys, cache = (
        PostgresKeys(pool),
        KeyCache(max_keys=settings.key_cache_keys, ttl_s=settings.key_cache_ttl_s, monotonic_s=now_s),
    )

    def fresh(ttl_s: float = settings.key_cache_ttl_s, *, lasting: bool = False) -> FreshCache[Any, Any]:
        entries = settings.key_cache_keys
        return FreshCache(max_entries=entries, ttl_s=ttl_s, monotonic_s=now_s, hearing=lambda: lasting or cache.hearing)

    authenticator = Authenticator(keys=keys, hasher=KeyHasher(pepper), cache=cache, clock=_now, monotonic_s=now_s)
    signing_keys = SigningKeys(
        store=PostgresSigningKeys(pool),
        sealer=Sealer(pepper, purpose="session signing keys"),
        clock=_now,
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
        clock=_now,
        monotonic_s=now_s,
    )
    signatures = SignatureCheck(store=request_keys, demanded=fresh(), clock=_now, monotonic_s=now_s)
    issuers, providers, issuer_keys = _issuers(settings, pool, fresh)
    dsn = settings.database_url.get_secret_value()
    store = PostgresCertificates(pool)
    shown = CertificateCheck(store=store, authenticator=authenticator, known=fresh(), monotonic_s=now_s)
    followers = (check, signing_keys, issuers, signatures, shown)
    return _Credentials(
        gate=Gate(keys=authenticator, sessions=check, issuers=issuers, signatures=signatures, certificates=shown),
        servicer=CredentialServicer(
            sessions=Sessions(tokens=tokens, signing_keys=signing_keys, keys=keys, revoked=revoked, clock=_now),
            signing_keys=signing_keys,
            providers=providers,
            request_keys=RequestKeys(store=request_keys, keys=keys, clock=_now),
            certificates=ClientCertificates(store=store, keys=keys, clock=_now),
        ),
        changes=PostgresAccessChanges(dsn, cache=cache, monotonic_s=now_s, followers=followers),
        timer=SessionTimer(signing_keys, (revoked, request_keys), interval_s=min(60.0, settings.session_key_s / 10)),
        issuer_keys=issuer_keys,
    )


def _issuers(
    settings: LedgerSettings, pool: Pool, fresh: Callable[[], FreshCache[Any, Any]]
) -> tuple[OidcCheck, IdentityProviders, IssuerKeys]:
    providers = PostgresProviders(pool)
    source = OidcDiscovery(private_addresses=settings.oidc_private_addresses, ca_file=settings.oidc_ca_file)
    keys = IssuerKeys(source=source, monotonic_s=time.monotonic)
    check = OidcCheck(
        providers=providers,
        users=PostgresUsers(pool),
        keys=keys,
        verified=fresh(),
        standing=fresh(),
        known_scopes=contract.scopes(),
        clock=_now,
        monotonic_s=time.monotonic,
    )
    own = settings.session_issuer
    return check, IdentityProviders(providers=providers, keys=keys, own_issuer=own, clock=_now), keys


async def _serve(settings: LedgerSettings) -> None:
    dsn = settings.database_url.get_secret_value()
    hasher = KeyHasher(settings.key_pepper.get_secret_value())
    health = Health()
    server = MeshServer(name="ledger", settings=settings, health=health, reflect=contract.service_names())
    pool = await open_pool(dsn, name="ledger", min_size=2, max_size=settings.database_pool)
    credentials = _credentials(settings, pool)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(pool.close)
        stack.push_async_callback(credentials.issuer_keys.close)
        health.add("database", lambda: ping(pool))
        # Without it keys are looked up more often, and nothing else is worse.
        health.add("key_changes", credentials.changes.check, required=False)
        books = _books(pool)
        server.add(add_LedgerServiceServicer_to_server, LedgerServicer(books), contract.LEDGER)
        server.add(add_IdentityServiceServicer_to_server, IdentityServicer(_key_ring(pool, hasher)), contract.IDENTITY)
        server.add(add_AuthorizationServicer_to_server, CheckServicer(credentials.gate), contract.AUTHORIZATION)
        server.add(add_CredentialServiceServicer_to_server, credentials.servicer, contract.CREDENTIALS)
        expiry = ExpiryTimer(books, interval_s=settings.expiry_interval_s)
        runs = (expiry.run, credentials.changes.run, credentials.timer.run)
        async with asyncio.TaskGroup() as background:
            tasks = [background.create_task(run()) for run in runs]
            try:
                await server.run()
            finally:
                for task in tasks:
                    task.cancel()


if __name__ == "__main__":
    sys.exit(main())
