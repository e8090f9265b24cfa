"""The ledger: `serve` (the default), `migrate`, `bootstrap`."""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from pagemesh.ledger.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from pagemesh.ledger.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from services.ledger.adapters.expiry_timer import ExpiryTimer
from services.ledger.adapters.postgres_changes import PostgresAccessChanges
from services.ledger.adapters.postgres_holds import PostgresHolds
from services.ledger.adapters.postgres_identity import PostgresKeys, PostgresTenants
from services.ledger.adapters.postgres_prices import PostgresPrices
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.api import contract
from services.ledger.api.check_servicer import CheckServicer
from services.ledger.api.identity_servicer import IdentityServicer
from services.ledger.api.ledger_servicer import LedgerServicer
from services.ledger.config import BootstrapSettings, DatabaseSettings, LedgerSettings
from services.ledger.domain.books import Books
from services.ledger.domain.identity import Authenticator, KeyRing
from services.ledger.domain.key_cache import KeyCache
from services.ledger.domain.keys import KeyHasher, KeyMint
from services.ledger.domain.onboarding import Onboarding
from services.runtime.config import load_settings
from services.runtime.errors import PagemeshError
from services.runtime.health import Health
from services.runtime.migrate import migrate
from services.runtime.postgres import Pool, open_pool, ping
from services.runtime.server import MeshServer
from xdsapi.envoy.service.auth.v3.external_auth_pb2_grpc import add_AuthorizationServicer_to_server

_MIGRATIONS = Path(__file__).parent / "migrations"
_BOOTSTRAP_TIMEOUT_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; answers the exit code."""
    options = _parser().parse_args(arguments)
    match options.command:
        case "migrate":
            database = load_settings(DatabaseSettings)
            migrate(database.database_url.get_secret_value(), directory=_MIGRATIONS, schema="ledger")
        case "bootstrap":
            return _run(_bootstrap(load_settings(BootstrapSettings), options))
        case _:
            return _run(_serve(load_settings(LedgerSettings)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="services.ledger", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="answer calls until stopped (the default)")
    commands.add_parser("migrate", help="bring the database schema to the newest revision")
    bootstrap = commands.add_parser("bootstrap", help="make a tenant, if absent, and an admin key for it")
    bootstrap.add_argument("--tenant", required=True, help="id: [0-9a-z-], at most 63 characters")
    bootstrap.add_argument("--display-name", default="", help="what people call the tenant; its id by default")
    bootstrap.add_argument("--hard-budget-micros", type=int, help="limit of all that the tenant may ever spend")
    return parser


def _run(command: Coroutine[None, None, None]) -> int:
    """One command on an event loop; an error that is ours is told in one line."""
    code = 0
    try:
        uvloop.run(command)
    except* (PagemeshError, OSError) as failed:
        code = 1
        for error in failed.exceptions:
            print(f"services.ledger: {error}", file=sys.stderr)
    return code


def _now() -> datetime:
    return datetime.now(UTC)


def _key_ring(pool: Pool, hasher: KeyHasher) -> KeyRing:
    return KeyRing(keys=PostgresKeys(pool), hasher=hasher, mint=KeyMint(), clock=_now, known_scopes=contract.scopes())


async def _bootstrap(settings: BootstrapSettings, options: argparse.Namespace) -> None:
    pool = await open_pool(settings.database_url.get_secret_value(), name="ledger-bootstrap", max_size=2)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(_BOOTSTRAP_TIMEOUT_S):
        stack.push_async_callback(pool.close)
        keys = _key_ring(pool, KeyHasher(settings.key_pepper.get_secret_value()))
        onboarding = Onboarding(tenants=PostgresTenants(pool), keys=keys, clock=_now, scopes=contract.scopes())
        key, credential = await onboarding.admit(
            options.tenant, options.display_name, hard_budget_micros=options.hard_budget_micros
        )
    print(json.dumps({"tenant": key.tenant, "api_key": key.name, "secret": credential}))


async def _serve(settings: LedgerSettings) -> None:
    dsn = settings.database_url.get_secret_value()
    hasher = KeyHasher(settings.key_pepper.get_secret_value())
    cache = KeyCache(max_keys=settings.key_cache_keys, ttl_s=settings.key_cache_ttl_s, monotonic_s=time.monotonic)
    changes = PostgresAccessChanges(dsn, cache=cache, monotonic_s=time.monotonic)
    health = Health()
    server = MeshServer(name="ledger", settings=settings, health=health, reflect=contract.service_names())
    pool = await open_pool(dsn, name="ledger", min_size=2, max_size=settings.database_pool)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(pool.close)
        health.add("database", lambda: ping(pool))
        # Without it keys are looked up more often, and nothing else is worse.
        health.add("key_changes", changes.check, required=False)
        books = Books(
            holds=PostgresHolds(pool),
            usage=PostgresUsage(pool),
            prices=PostgresPrices(pool, monotonic_s=time.monotonic),
            clock=_now,
        )
        authenticator = Authenticator(
            keys=PostgresKeys(pool), hasher=hasher, cache=cache, clock=_now, monotonic_s=time.monotonic
        )
        server.add(add_LedgerServiceServicer_to_server, LedgerServicer(books), contract.LEDGER)
        server.add(add_IdentityServiceServicer_to_server, IdentityServicer(_key_ring(pool, hasher)), contract.IDENTITY)
        server.add(add_AuthorizationServicer_to_server, CheckServicer(authenticator), contract.AUTHORIZATION)
        timer = ExpiryTimer(books, interval_s=settings.expiry_interval_s)
        async with asyncio.TaskGroup() as background:
            tasks = [background.create_task(changes.run()), background.create_task(timer.run())]
            try:
                await server.run()
            finally:
                for task in tasks:
                    task.cancel()


if __name__ == "__main__":
    sys.exit(main())
