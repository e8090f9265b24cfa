"""What is kept of texts whose answers may serve others that are nearly the same."""

from alembic import op

revision = "0034"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `similar_chunks` and `similar_bands`. Of what is there nothing is touched."""
    op.execute("""
        CREATE TABLE summarizer.similar_chunks (
            tenant      text    NOT NULL,
            content_key bytea   NOT NULL,
            sketch      bytea   NOT NULL,
            words       bytea   NOT NULL,
            stood       bytea   NOT NULL,
            first_page  integer NOT NULL CHECK (first_page > 0),
            PRIMARY KEY (tenant, content_key),
            FOREIGN KEY (tenant, content_key) REFERENCES summarizer.results ON DELETE CASCADE
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.similar_chunks IS
        'A row for each text that was asked about by somebody who lets near-identical texts share their answers: digests
         alone, no words. It goes with its answer.'
    """)
    op.execute("""
        CREATE TABLE summarizer.similar_bands (
            tenant      text  NOT NULL,
            band        bytea NOT NULL CHECK (octet_length(band) = 16),
            content_key bytea NOT NULL,
            PRIMARY KEY (tenant, band, content_key),
            FOREIGN KEY (tenant, content_key) REFERENCES summarizer.similar_chunks ON DELETE CASCADE
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.similar_bands IS
        'Eight rows for each text of similar_chunks: two texts that share one are worth a comparison.'
    """)
    # For the rows that go with their answer.
    op.execute("CREATE INDEX similar_bands_by_key ON summarizer.similar_bands (tenant, content_key)")
    for table in ("similar_chunks", "similar_bands"):
        op.execute(f"ALTER TABLE summarizer.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE summarizer.{table} FORCE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY own_tenant ON summarizer.{table}
            USING (tenant = current_setting('pagemesh.tenant', true))
            WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
        """)
