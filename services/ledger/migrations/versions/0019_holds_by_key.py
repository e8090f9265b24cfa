"""Settlements find their holds by the key, whatever the planner believes of the table."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replaces `begin_moves`: holds are closed by an array of ids instead of a join.

    A session plans the statement once, on a young table without statistics, and a join was planned as a walk through
    all holds of the tenant: each settlement cost more than the one before, until the table was analysed.
    """
    op.execute("""
        CREATE OR REPLACE FUNCTION ledger.begin_moves(
            of_tenant text, releases uuid[], records json, reserves json, new_periods json, periods json,
            OUT locked json, OUT settled json, OUT inserted json, OUT totals json
        ) LANGUAGE plpgsql AS $$
        BEGIN
            IF releases IS NOT NULL THEN
                SELECT json_object_agg(h.hold_id, h.state) INTO locked FROM (
                    SELECT hold_id, state FROM ledger.holds
                    WHERE tenant = of_tenant AND hold_id = ANY(releases) ORDER BY hold_id FOR UPDATE
                ) h;
            END IF;
            IF records IS NOT NULL THEN
                WITH asked AS MATERIALIZED (
                    SELECT * FROM json_to_recordset(records) AS e (
                        event_id uuid, hold_id uuid, model text, sent bigint, received bigint, operation text,
                        document text, request_id text, occurred timestamptz, tags jsonb, cost bigint, version integer,
                        actor text, recorded timestamptz, project text, job text)
                ), held AS MATERIALIZED (
                    SELECT hold_id, state FROM ledger.holds
                    WHERE tenant = of_tenant AND hold_id = ANY(ARRAY(SELECT hold_id FROM asked))
                    ORDER BY hold_id FOR UPDATE
                ), e AS MATERIALIZED (
                    SELECT asked.* FROM asked JOIN held USING (hold_id) WHERE state IN ('HELD', 'UNKNOWN')
                ), fresh AS (
                    INSERT INTO ledger.usage_ids (tenant, event_id, occur_time, hold_id)
                    SELECT of_tenant, event_id, occurred, hold_id FROM e ORDER BY event_id
                    ON CONFLICT DO NOTHING RETURNING event_id
                ), kept AS (
                    INSERT INTO ledger.usage_records (tenant, event_id, model, input_tokens, output_tokens, operation,
                        document, request_id, occur_time, tags, cost_micros, price_book_version, hold_id, actor,
                        record_time, project, job, user_name)
                    SELECT of_tenant, event_id, model, sent, received, operation, document, request_id, occurred, tags,
                           cost, version, hold_id, actor, recorded, project, job, ledger.user_of(of_tenant, actor)
                    FROM e JOIN fresh USING (event_id) RETURNING hold_id
                ), closed AS (
                    UPDATE ledger.holds SET state = 'SETTLED'
                    WHERE tenant = of_tenant AND hold_id = ANY(ARRAY(SELECT hold_id FROM kept))
                )
                SELECT json_agg(json_build_array(held.hold_id, held.state, kept.hold_id IS NOT NULL)) INTO settled
                FROM held LEFT JOIN kept USING (hold_id);
            END IF;
            IF reserves IS NOT NULL THEN
                WITH fresh AS (
                    INSERT INTO ledger.holds (tenant, hold_id, state, model, max_input_tokens, max_output_tokens,
                        amount_micros, price_book_version, actor, create_time, expire_time, project, job)
                    SELECT of_tenant, hold_id, 'HELD', model, sent, received, amount, version, actor, created, expires,
                           project, job
                    FROM json_to_recordset(reserves) AS h (
                        hold_id uuid, model text, sent bigint, received bigint, amount bigint, version integer,
                        actor text, created timestamptz, expires timestamptz, project text, job text)
                    WHERE EXISTS (SELECT FROM ledger.tenants WHERE id = of_tenant AND active)
                    ORDER BY hold_id ON CONFLICT DO NOTHING RETURNING hold_id
                )
                SELECT json_agg(hold_id) INTO inserted FROM fresh;
            END IF;
            totals := ledger.lock_totals(of_tenant, new_periods, periods);
        END $$
    """)
