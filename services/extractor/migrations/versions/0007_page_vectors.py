"""Vectors of pages, for searches by meaning."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `page_vectors`. The extension is a superuser's to create: deploy/postgres/roles.sql does."""
    op.execute("""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector') THEN
                RAISE EXCEPTION 'the extension vector is missing: run deploy/postgres/roles.sql again as a superuser';
            END IF;
        END $$
    """)
    op.execute("""
        CREATE TABLE extractor.page_vectors (
            tenant      text            NOT NULL,
            document_id text            NOT NULL,
            page        integer         NOT NULL CHECK (page > 0),
            -- Which passage of the page.
            part        smallint        NOT NULL CHECK (part BETWEEN 0 AND 255),
            -- One for all pages of a document.
            model       text            NOT NULL,
            embedding   vectors.halfvec NOT NULL CHECK (vectors.vector_dims(embedding) <= 3072),
            PRIMARY KEY (tenant, document_id, page, part),
            FOREIGN KEY (tenant, document_id) REFERENCES extractor.documents (tenant, id) ON DELETE CASCADE
        )
    """)
    # A search reads every vector of the tenant: in the row itself, and not elsewhere, it is read in one go.
    op.execute("ALTER TABLE extractor.page_vectors ALTER COLUMN embedding SET STORAGE PLAIN")
    op.execute("CREATE INDEX page_vectors_model ON extractor.page_vectors (tenant, model)")
    op.execute("ALTER TABLE extractor.page_vectors ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE extractor.page_vectors FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON extractor.page_vectors USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
