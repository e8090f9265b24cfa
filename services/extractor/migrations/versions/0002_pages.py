"""Pages that were read, so that they are read once."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `page_segments`, and lets documents remember what their parser said when it opened them."""
    op.execute("""
        ALTER TABLE extractor.documents
            -- Bits of DocumentFlag; known once page_count is.
            ADD COLUMN IF NOT EXISTS flags smallint NOT NULL DEFAULT 0,
            -- Metadata and outline on the wire, and which of them were asked for.
            ADD COLUMN IF NOT EXISTS info bytea,
            ADD COLUMN IF NOT EXISTS info_parts smallint NOT NULL DEFAULT 0
    """)
    op.execute("""
        CREATE TABLE extractor.page_segments (
            tenant      text        NOT NULL,
            document_id text        NOT NULL,
            -- The parser's pages, or those that were recognised in their place.
            source      smallint    NOT NULL CHECK (source IN (1, 2)),
            -- Bits of the parts that each page has.
            parts       smallint    NOT NULL,
            first_page  integer     NOT NULL CHECK (first_page > 0),
            last_page   integer     NOT NULL CHECK (last_page >= first_page),
            -- How the payload is written; an unknown one is read as if it were not there.
            format      smallint    NOT NULL,
            payload     bytea       NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            -- Answers also which segments cover a document.
            PRIMARY KEY (tenant, document_id, source, parts, first_page),
            FOREIGN KEY (tenant, document_id) REFERENCES extractor.documents (tenant, id) ON DELETE CASCADE
        )
    """)
    # It is compressed already.
    op.execute("ALTER TABLE extractor.page_segments ALTER COLUMN payload SET STORAGE EXTERNAL")
    # A query that forgets its tenant finds nothing; FORCE, because the service owns the table.
    op.execute("ALTER TABLE extractor.page_segments ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE extractor.page_segments FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON extractor.page_segments
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
