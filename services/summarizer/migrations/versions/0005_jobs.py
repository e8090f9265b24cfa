"""Jobs, their queue, their events, and the batches that they came in."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TENANT_TABLES = ("jobs", "job_batches", "job_events", "job_requests")
_TIME = "timestamptz NOT NULL DEFAULT now()"


def upgrade() -> None:
    """Creates new tables alone."""
    _jobs()
    _batches()
    _events()
    _requests()
    _queue()
    for table in _TENANT_TABLES:
        op.execute(f"ALTER TABLE summarizer.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE summarizer.{table} FORCE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY own_tenant ON summarizer.{table}
            USING (tenant = current_setting('pagemesh.tenant', true))
            WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
        """)
        # The clean-up removes what has expired of all tenants.
        op.execute(f"""
            CREATE POLICY upkeep ON summarizer.{table}
            USING (current_setting('pagemesh.across', true) = 'jobs') WITH CHECK (false)
        """)


def _jobs() -> None:
    op.execute(f"""
        CREATE TABLE summarizer.jobs (
            tenant         text        NOT NULL,
            id             text        NOT NULL CHECK (id ~ '^[0-9a-f]{{32}}$'),
            batch          text        NOT NULL,
            document       text        NOT NULL,
            work           bytea       NOT NULL,
            priority       smallint    NOT NULL,
            state          text        NOT NULL
                CHECK (state IN ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
            actor          text        NOT NULL,
            project        text        NOT NULL,
            call_id        text        NOT NULL,
            attempts       integer     NOT NULL DEFAULT 0,
            max_attempts   integer     NOT NULL,
            last_sequence  bigint      NOT NULL,
            pages_read     integer     NOT NULL DEFAULT 0,
            page_count     integer     NOT NULL DEFAULT 0,
            chunks_done    integer     NOT NULL DEFAULT 0,
            chunk_count    integer     NOT NULL DEFAULT 0,
            create_time    {_TIME},
            schedule_time  timestamptz NOT NULL,
            start_time     timestamptz,
            end_time       timestamptz,
            expire_time    timestamptz,
            fault_kind     text        NOT NULL DEFAULT '',
            fault_reason   text        NOT NULL DEFAULT '',
            fault_message  text        NOT NULL DEFAULT '',
            result         bytea,
            PRIMARY KEY (tenant, id)
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.jobs IS
        'One row for each job. Ids grow with time, so they are the order of lists. A job that has not ended has a row in
         job_queue as well. work and result are JSON as bytes, because text of documents and callers may hold
         characters that jsonb refuses.'
    """)
    op.execute("CREATE INDEX jobs_by_state ON summarizer.jobs (tenant, state, id)")
    op.execute("CREATE INDEX jobs_by_batch ON summarizer.jobs (tenant, batch, id) INCLUDE (state) WHERE batch <> ''")
    op.execute("CREATE INDEX jobs_by_document ON summarizer.jobs (tenant, document, id)")
    op.execute("CREATE INDEX jobs_by_expiry ON summarizer.jobs (expire_time) WHERE expire_time IS NOT NULL")


def _batches() -> None:
    op.execute(f"""
        CREATE TABLE summarizer.job_batches (
            tenant        text   NOT NULL,
            id            text   NOT NULL CHECK (id ~ '^[0-9a-f]{{32}}$'),
            last_sequence bigint NOT NULL,
            create_time   {_TIME},
            PRIMARY KEY (tenant, id)
        )
    """)


def _events() -> None:
    op.execute(f"""
        CREATE TABLE summarizer.job_events (
            tenant         text     NOT NULL,
            job            text     NOT NULL,
            sequence       bigint   NOT NULL,
            batch          text     NOT NULL,
            batch_sequence bigint   NOT NULL,
            kind           text     NOT NULL,
            state          text     NOT NULL,
            attempt        integer  NOT NULL,
            pages_read     integer  NOT NULL,
            page_count     integer  NOT NULL,
            chunks_done    integer  NOT NULL,
            chunk_count    integer  NOT NULL,
            fault_kind     text     NOT NULL,
            fault_reason   text     NOT NULL,
            fault_message  text     NOT NULL,
            create_time    {_TIME},
            PRIMARY KEY (tenant, job, sequence)
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.job_events IS
        'What happened to each job, numbered without gaps: the number is given under the lock of the row in jobs, so no
         event becomes visible before an earlier one. batch_sequence is the same for the batch, under the lock of the
         row in job_batches; 0 for progress and for jobs of no batch.'
    """)
    op.execute("""
        CREATE UNIQUE INDEX job_events_by_batch ON summarizer.job_events (tenant, batch, batch_sequence)
        WHERE batch_sequence > 0
    """)


def _requests() -> None:
    op.execute("""
        CREATE TABLE summarizer.job_requests (
            tenant      text  NOT NULL,
            actor       text  NOT NULL,
            request_id  uuid  NOT NULL,
            fingerprint bytea NOT NULL,
            job         text  NOT NULL,
            batch       text  NOT NULL,
            PRIMARY KEY (tenant, actor, request_id)
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.job_requests IS
        'What a request with an id of its own has made, so that the same request makes it once. Forgotten with the job,
         which is the first of a batch.'
    """)
    op.execute("CREATE INDEX job_requests_by_job ON summarizer.job_requests (tenant, job)")


def _queue() -> None:
    # Rows live for a moment: the space of those that are gone is to be used again soon.
    op.execute(f"""
        CREATE TABLE summarizer.job_queue (
            job          text        PRIMARY KEY,
            tenant       text        NOT NULL,
            priority     smallint    NOT NULL,
            due_time     timestamptz NOT NULL,
            attempt      integer     NOT NULL,
            tries        integer     NOT NULL DEFAULT 0,
            max_attempts integer     NOT NULL,
            worker       text,
            lease_time   timestamptz,
            queue_time   {_TIME},
            CHECK ((worker IS NULL) = (lease_time IS NULL))
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000)
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.job_queue IS
        'The jobs that have not ended. Workers read it for all tenants; it holds ids and times alone. A row with a
         worker is being worked on until lease_time. attempt is the fence: who claims a row adds 1, and who knows an
         older number changes nothing. Whoever ends a job deletes its row, and only one can.'
    """)
    op.execute("""
        CREATE INDEX job_queue_by_due_time ON summarizer.job_queue (tenant, priority, due_time, job)
        WHERE worker IS NULL
    """)
    op.execute("CREATE INDEX job_queue_at_work ON summarizer.job_queue (tenant) WHERE worker IS NOT NULL")
    op.execute("CREATE INDEX job_queue_by_lease ON summarizer.job_queue (lease_time) WHERE worker IS NOT NULL")
    op.execute("""
        CREATE TABLE summarizer.job_turns (
            tenant     text        PRIMARY KEY,
            serve_time timestamptz NOT NULL DEFAULT '-infinity'
        ) WITH (fillfactor = 50)
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.job_turns IS
        'When each tenant with jobs was last served: the next claim goes to the one that was served the longest ago.
         Its row is locked by a claim, so that the tenant never has more running than it may.'
    """)
