"""The ledger: `serve` (the default), `migrate`, `bootstrap`, `holds`, `prices`."""

import argparse
import asyncio
import contextlib
import functools
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pagemesh.ledger.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from pagemesh.ledger.v1.browser_session_service_pb2_grpc import add_BrowserSessionServiceServicer_to_server
from pagemesh.ledger.v1.credential_service_pb2_grpc import add_CredentialServiceServicer_to_server
from pagemesh.ledger.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from pagemesh.ledger.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from pagemesh.ledger.v1.operator_service_pb2_grpc import add_OperatorServiceServicer_to_server
from services.audit.concern import audited
from services.audit.trail import Trail
from services.database.pool import Pool, open_pool
from services.database.schema import SchemaCheck
from services.ledger.adapters.anomaly_timer import AnomalyTimer
from services.ledger.adapters.audit_timer import AuditTimer
from services.ledger.adapters.budget_gauge import PostgresBudgetGauge
from services.ledger.adapters.expiry_timer import ExpiryTimer
from services.ledger.adapters.own_events import OPERATOR, chaining, telling_of_operator
from services.ledger.adapters.postgres_anomalies import PostgresAnomalies
from services.ledger.adapters.postgres_audit import PostgresAudit
from services.ledger.adapters.postgres_audit_months import PostgresAuditMonths
from services.ledger.adapters.postgres_budgets import PostgresBudgets
from services.ledger.adapters.postgres_deliveries import PostgresDeliveries
from services.ledger.adapters.postgres_holds import PostgresHolds
from services.ledger.adapters.postgres_identity import PostgresKeys, PostgresTenants
from services.ledger.adapters.postgres_members import PostgresProjects, PostgresUsers
from services.ledger.adapters.postgres_partitions import PostgresPartitions
from services.ledger.adapters.postgres_prices import PostgresPrices, PostgresPriceShelf
from services.ledger.adapters.postgres_quotas import PostgresQuotas
from services.ledger.adapters.postgres_rollups import PostgresRollups
from services.ledger.adapters.postgres_tenants import PostgresTenantDirectory
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.adapters.postgres_usage_reports import PostgresUsageReports
from services.ledger.adapters.postgres_webhooks import PostgresOutbox, PostgresWebhooks
from services.ledger.adapters.usage_timer import UsageTimer
from services.ledger.api import command_line, contract
from services.ledger.api.audit_servicer import AuditServicer
from services.ledger.api.check_servicer import CheckServicer
from services.ledger.api.identity_servicer import IdentityServicer, IdentityUseCases
from services.ledger.api.ledger_servicer import LedgerServicer
from services.ledger.api.operator_servicer import OperatorServicer
from services.ledger.config import BootstrapSettings, LedgerSettings
from services.ledger.credentials import open_credentials
from services.ledger.domain.audit import AuditEvent
from services.ledger.domain.audit_books import AuditBooks
from services.ledger.domain.audit_retention import AuditRetention
from services.ledger.domain.books import Books
from services.ledger.domain.budgeting import Budgets
from services.ledger.domain.clients import ClientHasher
from services.ledger.domain.cost_anomalies import AnomalyWatch
from services.ledger.domain.directory import Projects, Standings, Tenants, Users
from services.ledger.domain.key_ring import KeyRing
from services.ledger.domain.keys import KeyHasher, KeyMint
from services.ledger.domain.onboarding import Onboarding
from services.ledger.domain.prices import PriceDesk, PriceLists
from services.ledger.domain.quotas import Quotas
from services.ledger.domain.reconciliation import Reconciliation
from services.ledger.domain.usage_reports import Reports
from services.ledger.domain.usage_upkeep import UsageUpkeep
from services.ledger.domain.usage_window import UsageWindow
from services.ledger.domain.values import Tokens
from services.ledger.domain.webhook_messages import WebhookMessages
from services.ledger.domain.webhooks import Webhooks, WebhookSecrets
from services.runtime.background import beside
from services.runtime.command import run
from services.runtime.config import DatabaseSettings, load_settings
from services.runtime.health import Health
from services.runtime.server import MeshServer
from services.webhooks import addresses
from services.webhooks.courier import Courier
from services.webhooks.sender import Sender
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
            # A service that serves has no use for what it loads.
            from services.database.migrate import migrate  # noqa: PLC0415

            database = load_settings(DatabaseSettings)
            migrate(database.database_url.get_secret_value(), directory=_MIGRATIONS, schema="ledger")
        case "bootstrap":
            return run(_bootstrap(load_settings(BootstrapSettings), options), name="services.ledger")
        case "holds":
            return run(_holds(load_settings(DatabaseSettings), options), name="services.ledger")
        case "prices":
            return run(_prices(load_settings(DatabaseSettings), options), name="services.ledger")
        case _:
            return run(_serve(load_settings(LedgerSettings)), name="services.ledger")
    return 0


def _now() -> datetime:
    return datetime.now(UTC)


def _key_ring(pool: Pool, hasher: KeyHasher) -> KeyRing:
    return KeyRing(
        keys=PostgresKeys(pool),
        users=PostgresUsers(pool),
        hasher=hasher,
        mint=KeyMint(),
        clock=_now,
        known_scopes=contract.scopes(),
    )


def _onboarding(pool: Pool, hasher: KeyHasher) -> Onboarding:
    return Onboarding(
        tenants=PostgresTenants(pool),
        directory=PostgresTenantDirectory(pool),
        users=PostgresUsers(pool),
        keys=_key_ring(pool, hasher),
        clock=_now,
        scopes=contract.scopes(),
    )


def _identity(pool: Pool, hasher: KeyHasher) -> IdentityUseCases:
    directory, users = PostgresTenantDirectory(pool), PostgresUsers(pool)
    return IdentityUseCases(
        keys=_key_ring(pool, hasher),
        tenants=Tenants(tenants=directory, clock=_now),
        projects=Projects(projects=PostgresProjects(pool), clock=_now),
        users=Users(users=users, clock=_now),
        standings=Standings(keys=PostgresKeys(pool), users=users, tenants=directory),
    )


def _upkeep(pool: Pool, window: UsageWindow) -> UsageUpkeep:
    return UsageUpkeep(rollups=PostgresRollups(pool), partitions=PostgresPartitions(pool), window=window, clock=_now)


async def _reports(settings: LedgerSettings, pool: Pool, stack: contextlib.AsyncExitStack) -> Reports:
    """Reads from the replica where there is one, and from nothing else then."""
    if settings.reports_database_url is not None:
        replica = settings.reports_database_url.get_secret_value()
        pool = await open_pool(replica, name="ledger-reports", max_size=settings.database_pool)
        stack.push_async_callback(pool.close)
    return Reports(usage=PostgresUsageReports(pool), clock=_now)


def _price_books(pool: Pool) -> PostgresPrices:
    return PostgresPrices(pool, clock=_now, monotonic_s=time.monotonic)


def _books(pool: Pool, holds: PostgresHolds, prices: PostgresPrices, window: UsageWindow = UsageWindow()) -> Books:  # noqa: B008  # a frozen value
    return Books(holds=holds, usage=PostgresUsage(pool), prices=prices, clock=_now, window=window)


def _money(
    pool: Pool, books: Books, reports: Reports, prices: PostgresPrices, settings: LedgerSettings
) -> LedgerServicer:
    """What a tenant is told of its money, and may do about it."""
    fault_of_url = functools.partial(addresses.fault_of_url, allow_private=settings.webhook_allow_private)
    hooks = WebhookSecrets(settings.key_pepper.get_secret_value())
    webhooks = Webhooks(store=PostgresWebhooks(pool), hooks=hooks, clock=_now, fault_of_url=fault_of_url)
    budgets = Budgets(store=PostgresBudgets(pool), clock=_now)
    # What was just settled is told: never out of a replica.
    messages = WebhookMessages(store=PostgresDeliveries(pool), usage=PostgresUsageReports(pool), clock=_now)
    return LedgerServicer(books, reports, budgets, PriceLists(prices), webhooks, messages=messages)


def _courier(pool: Pool, settings: LedgerSettings) -> Courier:
    return Courier(
        PostgresOutbox(pool, WebhookSecrets(settings.key_pepper.get_secret_value())),
        Sender(allow_private=settings.webhook_allow_private),
        clock=_now,
        interval_s=settings.expiry_interval_s,
        retry_s=settings.webhook_retry_s,
        most_attempts=settings.webhook_attempts,
    )


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
        actor=OPERATOR,
        resource=resource,
    )
    await AuditBooks(store=PostgresAudit(pool), clock=_now).record([event])


async def _bootstrap(settings: BootstrapSettings, options: argparse.Namespace) -> None:
    async with _command_pool(settings) as pool:
        onboarding = _onboarding(pool, KeyHasher(settings.key_pepper.get_secret_value()))
        tenant, name = options.tenant, options.display_name
        wanted = {
            "hard_budget_micros": options.hard_budget_micros,
            "plan": options.plan,
            "admin_email": options.admin_email,
        }
        if options.no_key:
            await onboarding.prepare(tenant, name, **wanted)
            told = command_line.tenant_line(tenant)
        else:
            key, credential = await onboarding.admit(tenant, name, **wanted)
            told = command_line.key_line(key, credential)
        await _audit(pool, tenant, "bootstrap", f"tenants/{tenant}")
    print(told)


async def _holds(settings: DatabaseSettings, options: argparse.Namespace) -> None:
    async with _command_pool(settings) as pool:
        stores = PostgresHolds(pool)
        reconciliation = Reconciliation(holds=stores, books=_books(pool, stores, _price_books(pool)))
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


async def _prices(settings: DatabaseSettings, options: argparse.Namespace) -> None:
    async with _command_pool(settings) as pool:
        desk = PriceDesk(PostgresPriceShelf(pool), _now)
        match options.action:
            case "load":
                version, currency, prices = command_line.price_list(options.file.read_text())
                await desk.publish(version, currency, prices)
                told = [command_line.price_list_line(version, len(prices))]
            case "override":
                kept = await desk.override(options.tenant, options.model, options.price, options.start)
                told = [command_line.override_line(kept)]
                await _audit(pool, options.tenant, "override", f"models/{options.model}")
            case _:
                given = await desk.overrides(options.tenant)
                told = [command_line.override_line(override) for override in given]
    for line in told:
        print(line)


async def _serve(settings: LedgerSettings) -> None:
    dsn = settings.database_url.get_secret_value()
    hasher = KeyHasher(settings.key_pepper.get_secret_value())
    health = Health()
    pool = await open_pool(dsn, name="ledger", min_size=2, max_size=settings.database_pool)
    audit = AuditBooks(store=PostgresAudit(pool), clock=_now)
    trail = Trail(chaining(audit))
    server = MeshServer(
        name="ledger", settings=settings, health=health, reflect=contract.service_names(), audit=[audited(trail)]
    )
    credentials = open_credentials(settings, pool, clock=_now)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(pool.close)
        stack.push_async_callback(credentials.issuer_keys.close)
        stack.push_async_callback(trail.close, _TRAIL_GRACE_S)
        health.add("database", SchemaCheck(pool, service="ledger", directory=_MIGRATIONS))
        # Without it keys are looked up more often, and nothing else is worse.
        health.add("key_changes", credentials.changes.check, required=False)
        holds, prices = PostgresHolds(pool), _price_books(pool)
        stack.push_async_callback(holds.close)
        window = UsageWindow(settings.usage_retention_months)
        books = _books(pool, holds, prices, window)
        reports = await _reports(settings, pool, stack)
        server.add(add_LedgerServiceServicer_to_server, _money(pool, books, reports, prices, settings), contract.LEDGER)
        identity = _identity(pool, hasher)
        server.add(add_IdentityServiceServicer_to_server, IdentityServicer(identity), contract.IDENTITY)
        operator = OperatorServicer(
            onboarding=_onboarding(pool, hasher), tenants=identity.tenants, tell=telling_of_operator(trail)
        )
        server.add(add_OperatorServiceServicer_to_server, operator, contract.OPERATOR)
        quotas = Quotas(store=PostgresQuotas(pool), monotonic_s=time.monotonic)
        server.add(add_AuditServiceServicer_to_server, AuditServicer(audit), contract.AUDIT)
        check = CheckServicer(credentials.gate, quotas, _clients(settings))
        server.add(add_AuthorizationServicer_to_server, check, contract.AUTHORIZATION)
        server.add(add_CredentialServiceServicer_to_server, credentials.servicer, contract.CREDENTIALS)
        browser = credentials.browser_servicer
        server.add(add_BrowserSessionServiceServicer_to_server, browser, contract.BROWSER_SESSIONS)
        gauge = PostgresBudgetGauge(pool)
        timer = ExpiryTimer(books, interval_s=settings.expiry_interval_s, also=gauge.measure)
        courier = _courier(pool, settings)
        usage_timer = UsageTimer(_upkeep(pool, window), interval_s=settings.usage_interval_s)
        audit_timer = _audit_timer(pool, settings)
        watch = AnomalyWatch(store=PostgresAnomalies(pool), clock=_now)
        anomalies = AnomalyTimer(watch, interval_s=settings.anomaly_interval_s)
        work = (credentials.changes, credentials.timer, timer, usage_timer, courier, trail, audit_timer, anomalies)
        async with beside(*(part.run() for part in work)):
            await server.run()


if __name__ == "__main__":
    sys.exit(main())
