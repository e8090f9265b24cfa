"""Ids of events, sums of usage, and the queue between them: what usage records in monthly partitions need.

Nothing reads it before the next revision. From this one on, whatever is recorded is counted: by a trigger on the table
of the records, which the next revision's backfill relies on.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_DIMENSIONS = """
            tenant        text        NOT NULL,
            facet         text        NOT NULL,
            value         text        NOT NULL,
            model         text        NOT NULL,
            project       text        NOT NULL,
            actor         text        NOT NULL,
            user_name     text        NOT NULL,
            operation     text        NOT NULL,
"""
_SUMS = """
            cost_micros   bigint      NOT NULL,
            records       bigint      NOT NULL,
            input_tokens  bigint      NOT NULL,
            output_tokens bigint      NOT NULL
"""


def upgrade() -> None:
    """Creates tables, functions and the trigger. The new column's constant default writes no row anew."""
    op.execute("ALTER TABLE ledger.usage_records ADD COLUMN user_name text NOT NULL DEFAULT ''")
    _ids()
    _deltas()
    _rollups()
    _functions()
    op.execute("""
        CREATE TRIGGER counted AFTER INSERT ON ledger.usage_records REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.take_in_usage()
    """)


def _ids() -> None:
    op.execute("""
        CREATE TABLE ledger.usage_ids (
            tenant     text        NOT NULL,
            event_id   uuid        NOT NULL,
            occur_time timestamptz NOT NULL,
            hold_id    uuid,
            PRIMARY KEY (tenant, event_id)
        )
    """)
    # A hold is settled by one record.
    op.execute("CREATE UNIQUE INDEX usage_ids_by_hold ON ledger.usage_ids (tenant, hold_id) WHERE hold_id IS NOT NULL")
    op.execute("""
        COMMENT ON TABLE ledger.usage_ids IS
        'One row for each usage record, in whatever partition that is: a partitioned table can keep an id unique only
         together with its time. Whoever inserts the id inserts the record, in the same statement.'
    """)


def _deltas() -> None:
    op.execute(f"""
        CREATE TABLE ledger.usage_deltas (
            hour timestamptz NOT NULL, {_DIMENSIONS} {_SUMS}
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)
    """)
    op.execute("CREATE INDEX usage_deltas_by_tenant ON ledger.usage_deltas (tenant, facet, hour)")
    op.execute("""
        COMMENT ON TABLE ledger.usage_deltas IS
        'Sums of records that are not in usage_rollups yet: written with the records, removed with the addition. A sum
         over both tables is exact in every snapshot.'
    """)


def _rollups() -> None:
    op.execute(f"""
        CREATE TABLE ledger.usage_rollups (
            span_hours smallint NOT NULL CHECK (span_hours IN (1, 24)),
            begin_time timestamptz NOT NULL, {_DIMENSIONS} {_SUMS},
            PRIMARY KEY (tenant, facet, span_hours, begin_time, value, model, project, actor, user_name, operation)
        ) WITH (fillfactor = 70)
    """)
    # For one job or one value of a tag, over any time.
    op.execute("""
        CREATE INDEX usage_rollups_by_value ON ledger.usage_rollups (tenant, facet, value, span_hours, begin_time)
        WHERE facet <> ''
    """)
    op.execute("""
        COMMENT ON TABLE ledger.usage_rollups IS
        'Sums by hour and by day (UTC) of occur_time. facet is empty for the rows in which each record counts once, job
         for those of records with a job, tag:{key} for those of records with that tag; value is the job or the value.'
    """)


def _functions() -> None:
    # Equal records are added up before they are spread over their facets: a batch has few kinds of them, which the
    # planner does not know, so it is told not to sort.
    op.execute("""
        CREATE FUNCTION ledger.queue_usage() RETURNS trigger LANGUAGE plpgsql SET enable_sort = off AS $$
        BEGIN
            INSERT INTO ledger.usage_deltas (hour, tenant, facet, value, model, project, actor, user_name, operation,
                                             cost_micros, records, input_tokens, output_tokens)
            SELECT k.hour, k.tenant, f.facet, f.value, k.model, k.project, k.actor, k.user_name, k.operation,
                   sum(k.cost_micros), sum(k.records), sum(k.input_tokens), sum(k.output_tokens)
            FROM (
                SELECT date_bin('1 hour', occur_time, '2000-01-01 00:00:00+00') AS hour, tenant, model, project, actor,
                       user_name, operation, job, tags, sum(cost_micros) AS cost_micros, count(*) AS records,
                       sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
                FROM added GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
            ) k CROSS JOIN LATERAL (
                SELECT '', '' UNION ALL SELECT 'job', k.job WHERE k.job <> ''
                UNION ALL SELECT 'tag:' || t.key, t.value FROM jsonb_each_text(k.tags) t
            ) f (facet, value)
            GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9;
            RETURN NULL;
        END $$
    """)
    # Of the table without partitions: what replicas record while the next revision copies the ids of older rows. The
    # id is new here, because that table's own primary key is; a row whose id the backfill has copied is counted by it.
    op.execute("""
        CREATE FUNCTION ledger.take_in_usage() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM ledger.take_in_usage(array_agg(event_id ORDER BY event_id), tenant) FROM added GROUP BY tenant;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION ledger.take_in_usage(wanted uuid[], of_tenant text) RETURNS bigint LANGUAGE sql AS $$
            WITH fresh AS (
                INSERT INTO ledger.usage_ids (tenant, event_id, occur_time, hold_id)
                SELECT tenant, event_id, occur_time, hold_id FROM ledger.usage_records
                WHERE tenant = of_tenant AND event_id = ANY (wanted) ORDER BY event_id
                ON CONFLICT DO NOTHING RETURNING event_id
            ), kinds AS (
                SELECT date_trunc('hour', occur_time, 'UTC') AS hour, tenant, model, project, actor, user_name,
                       operation, job, tags, sum(cost_micros) AS cost_micros, count(*) AS records,
                       sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
                FROM ledger.usage_records JOIN fresh USING (event_id) WHERE tenant = of_tenant
                GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
            ), queued AS (
                INSERT INTO ledger.usage_deltas (hour, tenant, facet, value, model, project, actor, user_name,
                                                 operation, cost_micros, records, input_tokens, output_tokens)
                SELECT k.hour, k.tenant, f.facet, f.value, k.model, k.project, k.actor, k.user_name, k.operation,
                       sum(k.cost_micros), sum(k.records), sum(k.input_tokens), sum(k.output_tokens)
                FROM kinds k CROSS JOIN LATERAL (
                    SELECT '', '' UNION ALL SELECT 'job', k.job WHERE k.job <> ''
                    UNION ALL SELECT 'tag:' || t.key, t.value FROM jsonb_each_text(k.tags) t
                ) f (facet, value)
                GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
            )
            SELECT count(*) FROM fresh
        $$
    """)
    op.execute("""
        CREATE FUNCTION ledger.user_of(of_tenant text, of_actor text) RETURNS text LANGUAGE sql STABLE AS $$
            SELECT CASE
                WHEN of_actor LIKE 'users/%' THEN of_actor
                WHEN of_actor LIKE 'apiKeys/%' THEN coalesce(
                    (SELECT 'users/' || user_id FROM ledger.api_keys
                     WHERE tenant = of_tenant AND id = substr(of_actor, 9)), '')
                ELSE ''
            END
        $$
    """)
