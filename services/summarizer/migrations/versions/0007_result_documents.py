"""Which documents an answer was made of, where they are several."""

from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `result_documents`. Of what is there nothing is touched."""
    op.execute("""
        CREATE TABLE summarizer.result_documents (
            tenant      text  NOT NULL,
            document    text  NOT NULL,
            content_key bytea NOT NULL,
            PRIMARY KEY (tenant, document, content_key),
            FOREIGN KEY (tenant, content_key) REFERENCES summarizer.results ON DELETE CASCADE
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.result_documents IS
        'A row for each document of an answer that was made of several; the answer itself names none. It is erased with
         the first of them that is erased.'
    """)
    # For the rows that go with their answer.
    op.execute("CREATE INDEX result_documents_by_key ON summarizer.result_documents (tenant, content_key)")
    op.execute("ALTER TABLE summarizer.result_documents ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE summarizer.result_documents FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON summarizer.result_documents
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
