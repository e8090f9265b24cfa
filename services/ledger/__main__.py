"""The ledger: `serve` (the default), `migrate`, `bootstrap`, `holds`."""

import argparse
import asyncio
import contextlib
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pagemesh.ledger.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from pagemesh.ledger.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from pagemesh.ledger.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from services.audit.concern import audited
from services.audit.trail import Trail
from services.database.migrate import migrate
from services.database.pool import Pool, open_pool, ping
from services.ledger.adapters.audit_timer import AuditTimer
from services.ledger.adapters.expiry_timer import ExpiryTimer
from services.ledger.adapters.own_events import chaining
from services.ledger.adapters.postgres_audit import PostgresAudit
from services.ledger.adapters.postgres_audit_months import PostgresAuditMonths
from services.ledger.adapters.postgres_changes import PostgresAccessChanges
from services.ledger.adapters.postgres_holds import PostgresHolds
from services.ledger.adapters.postgres_identity import PostgresKeys, PostgresTenants
from services.ledger.adapters.postgres_prices import PostgresPrices
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.api import command_line, contract
from services.ledger.api.audit_servicer import AuditServicer
from services.ledger.api.check_servicer import CheckServicer
from services.ledger.api.identity_servicer import IdentityServicer
from services.ledger.api.ledger_servicer import LedgerServicer
from services.ledger.config import BootstrapSettings, LedgerSettings
from services.ledger.domain.audit import AuditEvent
from services.ledger.domain.audit_books import AuditBooks
from services.ledger.domain.audit_retention import AuditRetention
from services.ledger.domain.books import Books
from services.ledger.domain.clients import ClientHasher
from services.ledger.domain.identity import Authenticator, KeyRing
from services.ledger.domain.key_cache import KeyCache
from services.ledger.domain.keys import KeyHasher, KeyMint
from services.ledger.domain.onboarding import Onboarding
from services.ledger.domain.reconciliation import Reconciliation
from services.ledger.domain.values import Tokens
from services.runtime.command import run
from services.runtime.config import DatabaseSettings, load_settings
from services.runtime.health import Health
from services.runtime.server import MeshServer
from xdsapi.envoy.service.auth.v3.external_auth_pb2_grpc import add_AuthorizationServicer_to_server

_MIGRATIONS = Path(__file__).parent / "migrations"
_COMMAND_TIMEOUT_S = 30.0
_TRAIL_GRACE_S = 5.0
_MONTH = timedelta(days=31)


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


def _clients(settings: LedgerSettings) -> ClientHasher:
    return ClientHasher((settings.audit_client_secret or settings.key_pepper).get_secret_value())


def _audit_timer(pool: Pool, settings: LedgerSettings) -> AuditTimer:
    return AuditTimer(
        AuditRetention(
            store=PostgresAudit(pool),
            partitions=PostgresAuditMonths(pool),
            clock=_now,
            keep=_MONTH * settings.audit_retention_months,
        )
    )


@contextlib.asynccontextmanager
async def _command_pool(settings: DatabaseSettings) -> AsyncIterator[Pool]:
    """The database for one command, which has _COMMAND_TIMEOUT_S."""
    pool = await open_pool(settings.database_url.get_secret_value(), name="ledger-command", max_size=2)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(_COMMAND_TIMEOUT_S):
        stack.push_async_callback(pool.close)
        yield pool


async def _audit(pool: Pool, tenant: str, action: str, resource: str) -> None:
    """What an operator did to a tenant by hand."""
    event = AuditEvent(
        event_id=uuid.uuid4(),
        tenant=tenant,
        occur_time=_now(),
        action=f"pagemesh.ledger.v1.Operator/{action}",
        actor="system/operator",
        resource=resource,
    )
    await AuditBooks(store=PostgresAudit(pool), clock=_now).record([event])


async def _bootstrap(settings: BootstrapSettings, options: argparse.Namespace) -> None:
    async with _command_pool(settings) as pool:
        keys = _key_ring(pool, KeyHasher(settings.key_pepper.get_secret_value()))
        onboarding = Onboarding(tenants=PostgresTenants(pool), keys=keys, clock=_now, scopes=contract.scopes())
        tenant, name, budget = options.tenant, options.display_name, options.hard_budget_micros
        if options.no_key:
            await onboarding.prepare(tenant, name, hard_budget_micros=budget)
            told = command_line.tenant_line(tenant)
        else:
            key, credential = await onboarding.admit(tenant, name, hard_budget_micros=budget)
            told = command_line.key_line(key, credential)
        await _audit(pool, tenant, "bootstrap", f"tenants/{tenant}")
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
                await _audit(pool, options.tenant, "settle", f"holds/{options.hold_id}")
            case "release":
                told = [command_line.hold_line(await reconciliation.release(options.tenant, options.hold_id))]
                await _audit(pool, options.tenant, "release", f"holds/{options.hold_id}")
            case _:
                holds = await reconciliation.unanswered(options.tenant, limit=options.limit)
                told = [command_line.hold_line(hold) for hold in holds]
    for line in told:
        print(line)


async def _serve(settings: LedgerSettings) -> None:
    dsn = settings.database_url.get_secret_value()
    hasher = KeyHasher(settings.key_pepper.get_secret_value())
    cache = KeyCache(max_keys=settings.key_cache_keys, ttl_s=settings.key_cache_ttl_s, monotonic_s=time.monotonic)
    changes = PostgresAccessChanges(dsn, cache=cache, monotonic_s=time.monotonic)
    health = Health()
    pool = await open_pool(dsn, name="ledger", min_size=2, max_size=settings.database_pool)
    audit = AuditBooks(store=PostgresAudit(pool), clock=_now)
    trail = Trail(chaining(audit))
    server = MeshServer(
        name="ledger", settings=settings, health=health, reflect=contract.service_names(), audit=[audited(trail)]
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(pool.close)
        stack.push_async_callback(trail.close, _TRAIL_GRACE_S)
        health.add("database", lambda: ping(pool))
        # Without it keys are looked up more often, and nothing else is worse.
        health.add("key_changes", changes.check, required=False)
        books = _books(pool)
        authenticator = Authenticator(
            keys=PostgresKeys(pool), hasher=hasher, cache=cache, clock=_now, monotonic_s=time.monotonic
        )
        server.add(add_LedgerServiceServicer_to_server, LedgerServicer(books), contract.LEDGER)
        server.add(add_IdentityServiceServicer_to_server, IdentityServicer(_key_ring(pool, hasher)), contract.IDENTITY)
        server.add(add_AuditServiceServicer_to_server, AuditServicer(audit), contract.AUDIT)
        check = CheckServicer(authenticator, _clients(settings))
        server.add(add_AuthorizationServicer_to_server, check, contract.AUTHORIZATION)
        timer = ExpiryTimer(books, interval_s=settings.expiry_interval_s)
        async with asyncio.TaskGroup() as background:
            work = (changes.run(), timer.run(), trail.run(), _audit_timer(pool, settings).run())
            tasks = [background.create_task(part) for part in work]
            try:
                await server.run()
            finally:
                for task in tasks:
                    task.cancel()


if __name__ == "__main__":
    sys.exit(main())
