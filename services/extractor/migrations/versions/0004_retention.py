"""How long documents are kept, and receipts of their deletion."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the term of documents, leases of those that are in use, and receipts of those that are gone."""
    _documents()
    _leases()
    _receipts()


def _documents() -> None:
    # Constants as defaults rewrite no table. What is there already is kept for a year from now: an upgrade erases
    # nothing.
    op.execute("""
        ALTER TABLE extractor.documents
            ADD COLUMN retention text NOT NULL DEFAULT 'KEPT'
                CHECK (retention IN ('EPHEMERAL', 'TEMPORARY', 'KEPT')),
            ADD COLUMN expire_time timestamptz NOT NULL DEFAULT now() + interval '1 year',
            -- When something had been made of an ephemeral document; it is erased once nobody uses it any more.
            ADD COLUMN process_time timestamptz,
            -- Why erase_time was set; NULL there means that an upload is under way.
            ADD COLUMN erase_cause text CHECK (erase_cause IN ('REQUESTED', 'EXPIRED', 'PROCESSED')),
            ADD COLUMN erase_actor text,
            -- Until then whoever erases it is left alone.
            ADD COLUMN claim_time timestamptz,
            ADD COLUMN results_deleted integer NOT NULL DEFAULT 0
    """)
    op.execute("ALTER TABLE extractor.documents ALTER COLUMN retention DROP DEFAULT")
    op.execute("ALTER TABLE extractor.documents ALTER COLUMN expire_time DROP DEFAULT")
    # Deletions that were under way were asked for; an upload's end is still to come, or it broke off and is as good as
    # deleted. Row security hides all rows from the owner too, who would change none, and they would end without a
    # receipt: it is lifted in this transaction, in which nobody else sees the table.
    op.execute("ALTER TABLE extractor.documents NO FORCE ROW LEVEL SECURITY")
    op.execute("UPDATE extractor.documents SET erase_cause = 'REQUESTED' WHERE erase_time <= now()")
    op.execute("ALTER TABLE extractor.documents FORCE ROW LEVEL SECURITY")
    # Writers wait while it is built: about a second for a million documents.
    op.execute("CREATE INDEX documents_expiry ON extractor.documents (expire_time) WHERE erase_time IS NULL")
    # The lifecycle worker acts for all tenants at the time that its setting says, and sees only what is due by then.
    op.execute("DROP POLICY unfinished_erasures ON extractor.documents")
    due = """
        nullif(current_setting('pagemesh.lifecycle_time', true), '') IS NOT NULL
        AND (erase_time IS NOT NULL
             OR expire_time <= nullif(current_setting('pagemesh.lifecycle_time', true), '')::timestamptz)
    """
    op.execute(f"CREATE POLICY lifecycle_sees ON extractor.documents FOR SELECT USING ({due})")
    op.execute(f"CREATE POLICY lifecycle_changes ON extractor.documents FOR UPDATE USING ({due})")


def _leases() -> None:
    op.execute("""
        CREATE TABLE extractor.document_leases (
            tenant      text        NOT NULL,
            document_id text        NOT NULL,
            lease_id    uuid        NOT NULL,
            -- Renewed while its holder lives.
            expire_time timestamptz NOT NULL,
            PRIMARY KEY (tenant, document_id, lease_id),
            FOREIGN KEY (tenant, document_id) REFERENCES extractor.documents (tenant, id) ON DELETE CASCADE
        )
    """)
    op.execute("CREATE INDEX document_leases_expiry ON extractor.document_leases (expire_time)")
    _own_tenant("document_leases")
    op.execute("""
        CREATE POLICY lifecycle_sees ON extractor.document_leases FOR SELECT
        USING (nullif(current_setting('pagemesh.lifecycle_time', true), '') IS NOT NULL)
    """)
    op.execute("""
        CREATE POLICY lifecycle_removes ON extractor.document_leases FOR DELETE
        USING (expire_time <= nullif(current_setting('pagemesh.lifecycle_time', true), '')::timestamptz)
    """)


def _receipts() -> None:
    op.execute("""
        CREATE TABLE extractor.deletion_receipts (
            tenant                text        NOT NULL,
            id                    text        NOT NULL CHECK (id ~ '^[0-9a-f]{32}$'),
            document_id           text        NOT NULL,
            sha256                text        NOT NULL,
            size_bytes            bigint      NOT NULL,
            objects_deleted       integer     NOT NULL,
            pages_deleted         integer     NOT NULL,
            index_entries_deleted integer     NOT NULL,
            results_deleted       integer     NOT NULL,
            cause                 text        NOT NULL CHECK (cause IN ('REQUESTED', 'EXPIRED', 'PROCESSED')),
            -- Who asked for it; empty where its time had come.
            actor                 text        NOT NULL,
            delete_time           timestamptz NOT NULL,
            digest                text        NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
            PRIMARY KEY (tenant, id)
        )
    """)
    op.execute("""
        CREATE INDEX deletion_receipts_list
        ON extractor.deletion_receipts (tenant, delete_time DESC, id DESC)
    """)
    op.execute("CREATE INDEX deletion_receipts_age ON extractor.deletion_receipts (delete_time)")
    _own_tenant("deletion_receipts")
    for verb in ("SELECT", "DELETE"):
        op.execute(f"""
            CREATE POLICY lifecycle_{verb.lower()}s ON extractor.deletion_receipts FOR {verb}
            USING (delete_time <= nullif(current_setting('pagemesh.lifecycle_time', true), '')::timestamptz
                                  - interval '7 years')
        """)


def _own_tenant(table: str) -> None:
    """A query that forgets its tenant finds nothing; FORCE, because the service owns the table."""
    op.execute(f"ALTER TABLE extractor.{table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE extractor.{table} FORCE ROW LEVEL SECURITY")
    op.execute(f"""
        CREATE POLICY own_tenant ON extractor.{table}
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
