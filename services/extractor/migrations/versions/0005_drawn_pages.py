"""Drawn pages, kept for a day."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `drawn_pages`: a row goes with its document, whoever removes that and whenever."""
    # UNLOGGED: what can be drawn again needs no write-ahead log, is in no archive, and may be lost in a crash.
    op.execute("""
        CREATE UNLOGGED TABLE extractor.drawn_pages (
            tenant       text        NOT NULL,
            document_id  text        NOT NULL,
            page         integer     NOT NULL CHECK (page > 0),
            dpi          smallint    NOT NULL CHECK (dpi > 0),
            format       text        NOT NULL CHECK (format IN ('JPEG', 'PNG')),
            -- 0 where there is none.
            jpeg_quality smallint    NOT NULL CHECK (jpeg_quality BETWEEN 0 AND 100),
            width_px     integer     NOT NULL CHECK (width_px > 0),
            height_px    integer     NOT NULL CHECK (height_px > 0),
            -- Of the content, so that it need not be read to be counted.
            size_bytes   integer     NOT NULL CHECK (size_bytes > 0),
            create_time  timestamptz NOT NULL,
            content      bytea       NOT NULL,
            PRIMARY KEY (tenant, document_id, page, dpi, format, jpeg_quality),
            FOREIGN KEY (tenant, document_id) REFERENCES extractor.documents (tenant, id) ON DELETE CASCADE
        )
    """)
    # It is compressed already.
    op.execute("ALTER TABLE extractor.drawn_pages ALTER COLUMN content SET STORAGE EXTERNAL")
    op.execute("CREATE INDEX drawn_pages_age ON extractor.drawn_pages (create_time)")
    op.execute("""
        CREATE INDEX drawn_pages_size ON extractor.drawn_pages (tenant, create_time DESC) INCLUDE (size_bytes)
    """)
    # A query that forgets its tenant finds nothing; FORCE, because the service owns the table.
    op.execute("ALTER TABLE extractor.drawn_pages ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE extractor.drawn_pages FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON extractor.drawn_pages
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
    # Whoever acts for all tenants at the time that its setting says sees only what is a day old by then.
    for verb in ("SELECT", "DELETE"):
        op.execute(f"""
            CREATE POLICY lifecycle_{verb.lower()}s ON extractor.drawn_pages FOR {verb}
            USING (create_time <= nullif(current_setting('pagemesh.lifecycle_time', true), '')::timestamptz
                                  - interval '1 day')
        """)
