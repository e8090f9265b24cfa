"""Stored schemas and their versions."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `schema_ids` and `schemas`. Nothing that is there is touched."""
    op.execute("""
        CREATE TABLE summarizer.schema_ids (
            tenant         text    NOT NULL,
            schema_id      text    NOT NULL,
            last_version   integer NOT NULL CHECK (last_version > 0),
            latest_version integer,
            PRIMARY KEY (tenant, schema_id)
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.schema_ids IS
        'One row for each id that was ever used, so that no version number is given twice: last_version is the last that
         was given. latest_version is the one that the bare name stands for, NULL after a deletion.'
    """)
    op.execute("""
        CREATE TABLE summarizer.schemas (
            tenant      text        NOT NULL,
            schema_id   text        NOT NULL,
            version     integer     NOT NULL CHECK (version > 0),
            digest      text        NOT NULL CHECK (length(digest) = 64),
            content     text        NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant, schema_id, version),
            UNIQUE (tenant, schema_id, digest)
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.schemas IS
        'Versions of JSON Schemas; a row is written once and never changed. content is canonical JSON as text, because
         jsonb refuses characters that JSON may hold.'
    """)
    for table in ("schema_ids", "schemas"):
        op.execute(f"ALTER TABLE summarizer.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE summarizer.{table} FORCE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY own_tenant ON summarizer.{table}
            USING (tenant = current_setting('pagemesh.tenant', true))
            WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
        """)
    # The list of the latest versions, by id, without the ids that were deleted.
    op.execute("""
        CREATE INDEX schema_ids_listed ON summarizer.schema_ids (tenant, schema_id) INCLUDE (latest_version)
        WHERE latest_version IS NOT NULL
    """)
