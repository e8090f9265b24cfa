"""Events of jobs in one partition for each month in which their job was made.

A job's id begins with the time at which it was made, so ranges of ids are months: all events of a job are in one
partition, their numbers stay unique by the primary key, and reading them looks at one partition. The jobs of a batch
are made in one millisecond, so their events are in one partition too.

The table that was there becomes the first partition, with all months up to the end of the one after its newest job: no
row is moved, and the swap takes the time of a rename. Workers and servers of an older release go on with the new table.
Every step may be repeated: a run that was broken off is started again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0016"
branch_labels = None
depends_on = None

_BOUND = """
    SELECT summarizer.first_job_id(date_trunc('month', greatest(now(), max(
        to_timestamp(('x' || lpad(left(job, 12), 16, '0'))::bit(64)::bigint / 1000.0))), 'UTC') + interval '2 months')
    FROM summarizer.job_events
"""


def upgrade() -> None:
    """Finds out up to where the old table goes, swaps the tables, and makes the coming months."""
    op.execute("""
        CREATE OR REPLACE FUNCTION summarizer.first_job_id(at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS $$
            SELECT lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
        $$
    """)
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        connection.execute(sa.text("SELECT set_config('pagemesh.across', 'jobs', false)"))
        bound = str(connection.execute(sa.text(_BOUND)).scalar_one())
        op.execute("ALTER TABLE summarizer.job_events DROP CONSTRAINT IF EXISTS months_of_before")
        # Two steps: the first holds its lock for a moment, the second reads the table and hinders nobody.
        op.execute(
            f"ALTER TABLE summarizer.job_events ADD CONSTRAINT months_of_before CHECK (job < '{bound}') NOT VALID"
        )
        op.execute("ALTER TABLE summarizer.job_events VALIDATE CONSTRAINT months_of_before")
    _swap(bound)
    _make()
    _drop()
    op.execute("""
        SELECT summarizer.make_job_event_partition(
            date_add(date_trunc('month', now(), 'UTC'), n * interval '1 month', 'UTC'))
        FROM generate_series(0, 3) n
    """)
    op.execute("SELECT set_config('pagemesh.across', '', false)")


def _swap(bound: str) -> None:
    # Nobody may write between the last look and the rename.
    op.execute("LOCK TABLE summarizer.job_events IN ACCESS EXCLUSIVE MODE")
    op.execute("ALTER TABLE summarizer.job_events RENAME TO job_events_before")
    for name in ("pkey", "by_batch"):
        op.execute(f"ALTER INDEX summarizer.job_events_{name} RENAME TO job_events_before_{name}")
    op.execute("""
        CREATE TABLE summarizer.job_events (
            LIKE summarizer.job_events_before INCLUDING DEFAULTS, PRIMARY KEY (tenant, job, sequence)
        ) PARTITION BY RANGE (job)
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.job_events IS
        'What happened to each job, numbered without gaps: the number is given under the lock of the row in jobs, so no
         event becomes visible before an earlier one. batch_sequence is the same for the batch, under the lock of the
         row in job_batches; 0 for progress and for jobs of no batch. Each partition keeps it unique by an index of its
         own, which is enough, because the jobs of a batch are made in the same millisecond.'
    """)
    op.execute("""
        CREATE TABLE summarizer.job_event_partitions (
            name       text        PRIMARY KEY,
            first_job  text        NOT NULL,
            end_job    text        NOT NULL CHECK (end_job > first_job)
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.job_event_partitions IS
        'The partitions of job_events but for its default one, and the ids of jobs between which each is.'
    """)
    # Takes what no month was made for, where no worker ran for months: nobody is refused for that.
    op.execute("CREATE TABLE summarizer.job_events_default (LIKE summarizer.job_events INCLUDING ALL)")
    _by_batch("job_events_default")
    op.execute("ALTER TABLE summarizer.job_events ATTACH PARTITION summarizer.job_events_default DEFAULT")
    if op.get_bind().execute(sa.text("SELECT EXISTS (SELECT FROM summarizer.job_events_before)")).scalar_one():
        # The constraint, which holds, spares it the reading of all rows.
        op.execute(f"""
            ALTER TABLE summarizer.job_events ATTACH PARTITION summarizer.job_events_before
            FOR VALUES FROM (MINVALUE) TO ('{bound}')
        """)
        op.execute("ALTER TABLE summarizer.job_events_before DROP CONSTRAINT months_of_before")
        op.execute(f"INSERT INTO summarizer.job_event_partitions VALUES ('job_events_before', '', '{bound}')")  # noqa: S608
    else:
        op.execute("DROP TABLE summarizer.job_events_before")
    for table in ("job_events", "job_events_default"):
        for statement in _SECURED.split(";")[:-1]:
            op.execute(statement.replace("%I", table))


_SECURED = """
    ALTER TABLE summarizer.%I ENABLE ROW LEVEL SECURITY;
    ALTER TABLE summarizer.%I FORCE ROW LEVEL SECURITY;
    CREATE POLICY own_tenant ON summarizer.%I
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true));
    CREATE POLICY upkeep ON summarizer.%I
        USING (current_setting('pagemesh.across', true) = 'jobs') WITH CHECK (false);
"""


def _by_batch(table: str) -> None:
    op.execute(f"""
        CREATE UNIQUE INDEX {table}_by_batch ON summarizer.{table} (tenant, batch, batch_sequence)
        WHERE batch_sequence > 0
    """)


def _make() -> None:
    # Attaching locks the default partition alone, which is empty; a table that is created as a partition locks all. It
    # gives way to whoever reads that one: nobody waits behind it.
    op.execute(f"""
        CREATE FUNCTION summarizer.make_job_event_partition(of_time timestamptz) RETURNS boolean
        LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
        DECLARE
            first_id text := summarizer.first_job_id(date_trunc('month', of_time, 'UTC'));
            end_id text := summarizer.first_job_id(
                date_add(date_trunc('month', of_time, 'UTC'), interval '1 month', 'UTC'));
            partition text := 'job_events_' || to_char(of_time AT TIME ZONE 'UTC', '"y"YYYY"m"MM');
        BEGIN
            PERFORM set_config('pagemesh.across', 'jobs', true);
            IF EXISTS (SELECT FROM summarizer.job_event_partitions WHERE first_job < end_id AND end_job > first_id) THEN
                RETURN false;
            END IF;
            PERFORM pg_advisory_xact_lock(hashtext('pagemesh-job-event-partitions'));
            IF EXISTS (SELECT FROM summarizer.job_events_default WHERE job >= first_id AND job < end_id) THEN
                RETURN false;
            END IF;
            INSERT INTO summarizer.job_event_partitions VALUES (partition, first_id, end_id) ON CONFLICT DO NOTHING;
            IF NOT FOUND THEN
                RETURN false;
            END IF;
            EXECUTE format('CREATE TABLE summarizer.%I (LIKE summarizer.job_events INCLUDING ALL)', partition);
            EXECUTE format('CREATE UNIQUE INDEX %I ON summarizer.%I (tenant, batch, batch_sequence)
                WHERE batch_sequence > 0', partition || '_by_batch', partition);
            EXECUTE replace($secured${_SECURED}$secured$, '%I', partition);
            EXECUTE format('ALTER TABLE summarizer.job_events ATTACH PARTITION summarizer.%I
                FOR VALUES FROM (%L) TO (%L)', partition, first_id, end_id);
            RETURN true;
        END $$
    """)  # noqa: S608  # of the constant above


def _drop() -> None:
    # Of a month that is over, no job is made any more: where no event is left, none will come. Who has the lock of the
    # table looks once more, and gives it back at once: nobody waits for a month that somebody reads.
    op.execute("""
        CREATE FUNCTION summarizer.drop_job_event_partition(before timestamptz) RETURNS text
        LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
        DECLARE
            partition text;
            used boolean;
        BEGIN
            PERFORM set_config('pagemesh.across', 'jobs', true);
            FOR partition IN
                SELECT name FROM summarizer.job_event_partitions
                WHERE end_job <= summarizer.first_job_id(before) ORDER BY end_job
            LOOP
                EXECUTE format('SELECT EXISTS (SELECT FROM summarizer.%I)', partition) INTO used;
                IF used THEN
                    CONTINUE;
                END IF;
                LOCK TABLE ONLY summarizer.job_events IN ACCESS EXCLUSIVE MODE;
                EXECUTE format('LOCK TABLE summarizer.%I IN ACCESS EXCLUSIVE MODE', partition);
                EXECUTE format('SELECT EXISTS (SELECT FROM summarizer.%I)', partition) INTO used;
                IF NOT used THEN
                    EXECUTE format('DROP TABLE summarizer.%I', partition);
                    DELETE FROM summarizer.job_event_partitions WHERE name = partition;
                    RETURN partition;
                END IF;
            END LOOP;
            RETURN NULL;
        END $$
    """)
