"""Documents, by tenant."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `documents` with the index of its list and that of unfinished deletions."""
    op.execute("""
        CREATE TABLE extractor.documents (
            tenant       text        NOT NULL CHECK (length(tenant) BETWEEN 1 AND 128),
            -- The first 32 digits of sha256: the same bytes are the same document within a tenant.
            id           text        NOT NULL CHECK (id = left(sha256, 32)),
            sha256       text        NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
            display_name text        NOT NULL CHECK (display_name ~ '^[a-zA-Z0-9._-]{1,255}$'),
            media_type   text        NOT NULL
                CHECK (media_type IN ('application/pdf', 'image/jpeg', 'image/png')),
            size_bytes   bigint      NOT NULL CHECK (size_bytes > 0),
            create_time  timestamptz NOT NULL,
            -- Known after the first extraction.
            page_count   integer     CHECK (page_count > 0),
            -- Set while a deletion is under way, and to a time to come while an upload is: the document is
            -- invisible, and from that time on its bytes are to go.
            erase_time   timestamptz,
            PRIMARY KEY (tenant, id)
        )
    """)
    op.execute("""
        CREATE INDEX documents_list ON extractor.documents (tenant, create_time DESC, id DESC)
        WHERE erase_time IS NULL
    """)
    op.execute("""
        CREATE INDEX documents_erasures ON extractor.documents (erase_time) WHERE erase_time IS NOT NULL
    """)
    # A query that forgets its tenant finds nothing; FORCE, because the service owns the table.
    op.execute("ALTER TABLE extractor.documents ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE extractor.documents FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON extractor.documents
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
    # The sweep looks for deletions that broke off, whoever asked for them, and sees nothing else.
    op.execute("""
        CREATE POLICY unfinished_erasures ON extractor.documents FOR SELECT
        USING (erase_time IS NOT NULL AND current_setting('pagemesh.sweep', true) = 'on')
    """)
