"""What a group of calls that moves money reads and writes, as two functions, so that each is one round trip."""

from alembic import op

revision = "0012"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds functions. They hold no rules: what is refused, and by how much totals change, is decided by the caller.

    Each of their statements sees what was committed when it began, as if it had been sent alone.
    """
    _totals()
    _begin()
    _end()


def _totals() -> None:
    # Both in the order of `rank`: whatever two transactions want, one that waits for the other holds nothing it wants.
    start = "CASE b.period WHEN 'DAY' THEN w.day WHEN 'MONTH' THEN w.month ELSE '1970-01-01T00:00:00Z' END"
    op.execute(f"""
        CREATE FUNCTION ledger.lock_totals(of_tenant text, new json, wanted json) RETURNS json LANGUAGE plpgsql AS $$
        DECLARE
            answer json;
        BEGIN
            IF new IS NOT NULL THEN
                INSERT INTO ledger.budget_periods (tenant, budget, period_start, settled_micros, held_micros)
                SELECT b.tenant, b.id, {start}, 0, 0
                FROM json_to_recordset(new) AS w (subject text, day timestamptz, month timestamptz)
                JOIN ledger.budgets b ON b.tenant = of_tenant AND b.subject = w.subject AND b.delete_time IS NULL
                WHERE NOT EXISTS (SELECT FROM ledger.budget_periods p
                                  WHERE p.tenant = b.tenant AND p.budget = b.id AND p.period_start = {start})
                ORDER BY b.rank, b.id, 3 ON CONFLICT DO NOTHING;
            END IF;
            SELECT json_agg(json_build_array(
                t.id, t.subject, t.period, t.hard_micros, t.soft_micros, t.create_time, t.update_time, t.operator,
                t.period_start, t.settled_micros, t.held_micros, t.hard_reached, t.soft_reached)) INTO answer
            FROM (
                SELECT b.id, b.subject, b.period, b.hard_micros, b.soft_micros, b.create_time, b.update_time,
                       b.operator, p.period_start, p.settled_micros, p.held_micros, p.hard_reached, p.soft_reached
                FROM json_to_recordset(wanted) AS w (subject text, day timestamptz, month timestamptz)
                JOIN ledger.budgets b ON b.tenant = of_tenant AND b.subject = w.subject AND b.delete_time IS NULL
                JOIN ledger.budget_periods p ON p.tenant = b.tenant AND p.budget = b.id AND p.period_start = {start}
                ORDER BY b.rank, b.id, p.period_start FOR UPDATE OF p
            ) t;
            RETURN answer;
        END $$
    """)  # noqa: S608  # of the constant above
    op.execute("""
        CREATE FUNCTION ledger.write_totals(of_tenant text, lines json) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE ledger.budget_periods p
            SET settled_micros = n.settled, held_micros = n.held, hard_reached = n.hard, soft_reached = n.soft
            FROM json_to_recordset(lines) AS n (budget text, start timestamptz, settled bigint, held bigint,
                                                hard smallint, soft smallint)
            WHERE p.tenant = of_tenant AND p.budget = n.budget AND p.period_start = n.start;
        END $$
    """)


def _begin() -> None:
    # Settlements: an id goes first into the table that keeps ids, and holds, unique in all months. Holds are locked by
    # id and ids inserted by event id, so that two groups cannot wait for each other. The lock reads a row as it is
    # then, whatever the statement saw when it began.
    op.execute("""
        CREATE FUNCTION ledger.begin_moves(
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
                    UPDATE ledger.holds h SET state = 'SETTLED' FROM kept
                    WHERE h.tenant = of_tenant AND h.hold_id = kept.hold_id
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


def _end() -> None:
    op.execute("""
        CREATE FUNCTION ledger.end_moves(of_tenant text, removed uuid[], released uuid[], lines json) RETURNS void
        LANGUAGE plpgsql AS $$
        BEGIN
            IF removed IS NOT NULL THEN
                DELETE FROM ledger.holds WHERE tenant = of_tenant AND hold_id = ANY(removed);
            END IF;
            IF released IS NOT NULL THEN
                UPDATE ledger.holds SET state = 'RELEASED' WHERE tenant = of_tenant AND hold_id = ANY(released);
            END IF;
            IF lines IS NOT NULL THEN
                PERFORM ledger.write_totals(of_tenant, lines);
            END IF;
        END $$
    """)
