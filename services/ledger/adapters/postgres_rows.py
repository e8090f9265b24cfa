"""Rows of the ledger's tables as values, and the statements that several stores share."""

from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg import sql

from services.ledger.domain.keys import ApiKey
from services.ledger.domain.values import Hold, HoldState, Tokens, UsageEvent, UsageRecord

Row = Sequence[Any]

BIND_TENANT = "SELECT set_config('pagemesh.tenant', %s, true)"
"""First statement of every other transaction of a tenant: without it, row-level security shows nothing."""
WORK_ACROSS = "SELECT set_config('pagemesh.across', %s, true)"
"""First statement of work over all tenants, with the name of that work, which sees no more than it needs."""
BOUND = "(SELECT set_config('pagemesh.tenant', %(tenant)s, true) AS tenant OFFSET 0) AS bound CROSS JOIN LATERAL"
"""The same as BIND_TENANT within a single statement, before its tables are looked at: OFFSET 0 keeps the two apart."""
ACROSS_CREDENTIALS = "(SELECT set_config('pagemesh.across', 'credentials', true) OFFSET 0) AS across CROSS JOIN LATERAL"
"""The same for looking up whose a credential is."""
SHARE_TENANT = """
    SELECT set_config('pagemesh.tenant', t, true), pg_advisory_xact_lock_shared(k, hashtext(t))
    FROM (VALUES (%s::int, %s::text)) AS v (k, t)
"""
"""First statement of every transaction that moves a tenant's money; it binds the transaction to the tenant.

It waits for nobody but the rare transaction that makes or changes a budget and sums up what was spent before: every
other transaction is either in that sum or sees the budget, and no limit changes while it works. Unlike a row lock it
writes nothing.
"""
OWN_TENANT = """
    SELECT set_config('pagemesh.tenant', t, true), pg_advisory_xact_lock(k, hashtext(t))
    FROM (VALUES (%s::int, %s::text)) AS v (k, t)
"""
TENANT_LOCK = 7101
"""Key space of these locks among the database's advisory locks."""

_HOLD_COLUMNS = sql.SQL(
    "tenant, hold_id, state, model, max_input_tokens, max_output_tokens, amount_micros, price_book_version, actor,"
    " create_time, expire_time, project, job"
)
USAGE_COLUMNS = sql.SQL(
    "tenant, event_id, model, input_tokens, output_tokens, operation, document, request_id, occur_time, tags,"
    " cost_micros, price_book_version, hold_id, actor, record_time, project, job"
)
_KEY_COLUMNS = sql.SQL(
    "id, tenant, display_name, scopes, create_time, expire_time, revoke_time, project, user_id, rotate_time,"
    " previous_expire_time"
)


def statement(text: LiteralString) -> bytes:
    """A statement with `{hold}`, `{usage}` and `{key}` replaced by the columns that the functions below expect."""
    return sql.SQL(text).format(hold=_HOLD_COLUMNS, usage=USAGE_COLUMNS, key=_KEY_COLUMNS).as_bytes()


def hold_of(row: Row) -> Hold:
    """A row of {hold}."""
    tenant, hold_id, state, model, sent, received, amount, version, actor, created, expires, project, job = row
    return Hold(
        tenant=tenant,
        hold_id=hold_id,
        state=HoldState(state),
        model=model,
        most=Tokens(sent, received),
        amount_micros=amount,
        price_book_version=version,
        actor=actor,
        create_time=created,
        expire_time=expires,
        project=project,
        job=job,
    )


def record_of(row: Row) -> UsageRecord:
    """A row of {usage}."""
    tenant, event_id, model, sent, received, operation, document, request_id, occurred, tags = row[:10]
    cost, version, hold_id, actor, recorded, project, job = row[10:]
    event = UsageEvent(
        event_id=event_id,
        model=model,
        tokens=Tokens(sent, received),
        operation=operation,
        document=document,
        request_id=request_id,
        occur_time=occurred,
        tags=tags,
        job=job,
    )
    return UsageRecord(tenant, event, cost, version, hold_id, actor, recorded, project)


def key_of(row: Row) -> ApiKey:
    """A row of {key}."""
    key_id, tenant, display_name, scopes, created, expires, revoked, project, user, rotated, previous = row
    return ApiKey(
        key_id=key_id,
        tenant=tenant,
        display_name=display_name,
        scopes=frozenset(scopes),
        create_time=created,
        expire_time=expires,
        revoke_time=revoked,
        project=project or "",
        user=user or "",
        rotate_time=rotated,
        previous_expire_time=previous,
    )
