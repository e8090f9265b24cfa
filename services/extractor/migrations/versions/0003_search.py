"""The search index, and which documents are still to be read for it."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `page_index` and what its row security needs, and lets documents count their searchable pages."""
    _documents()
    _scope()
    _page_index()
    op.execute("""
        -- Which languages a tenant's pages are in, or were: a search asks in each of them.
        CREATE TABLE extractor.page_languages (
            tenant   text NOT NULL,
            language text NOT NULL,
            PRIMARY KEY (tenant, language)
        )
    """)
    _own_tenant("page_languages", "tenant = current_setting('pagemesh.tenant', true)")


def _documents() -> None:
    op.execute("""
        ALTER TABLE extractor.documents
            -- Rows of page_index: written with them, because a list must not count them.
            ADD COLUMN searchable_pages integer NOT NULL DEFAULT 0,
            -- How often the service has begun by itself to read the document, and when it next may; NULL: never again.
            ADD COLUMN index_attempts smallint NOT NULL DEFAULT 0,
            ADD COLUMN index_due_time timestamptz DEFAULT now() + interval '30 seconds'
    """)
    op.execute("""
        CREATE INDEX documents_index_due ON extractor.documents (index_due_time) WHERE index_due_time IS NOT NULL
    """)
    # The indexer looks over all tenants for documents that nobody has extracted, and sees nothing else.
    op.execute("""
        CREATE POLICY index_due ON extractor.documents FOR SELECT
        USING (index_due_time IS NOT NULL AND current_setting('pagemesh.indexer', true) = 'on')
    """)


def _scope() -> None:
    # Each vector has a lexeme of its tenant, so that the index finds the rows of one tenant without reading another's.
    # No text can spell it: control characters are removed before text is indexed.
    op.execute(r"""
        CREATE FUNCTION extractor.tenant_lexeme(tenant text) RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN E'\x01' || md5(tenant)
    """)
    op.execute("""
        CREATE FUNCTION extractor.search_scope() RETURNS tsquery
        LANGUAGE sql STABLE PARALLEL SAFE RETURN
            ('''' || extractor.tenant_lexeme(current_setting('pagemesh.tenant', true)) || '''')::tsquery
            && coalesce(nullif(current_setting('pagemesh.query', true), ''), '')::tsquery
    """)


def _page_index() -> None:
    op.execute("""
        CREATE TABLE extractor.page_index (
            tenant      text     NOT NULL,
            document_id text     NOT NULL,
            page        integer  NOT NULL CHECK (page > 0),
            -- By whose rules its words were stemmed: ISO 639-1, or empty where it is unknown.
            language    text     NOT NULL CHECK (language ~ '^([a-z]{2})?$'),
            tsv         tsvector NOT NULL,
            PRIMARY KEY (tenant, document_id, page),
            FOREIGN KEY (tenant, document_id) REFERENCES extractor.documents (tenant, id) ON DELETE CASCADE
        )
    """)
    # New entries wait in a list that every search reads, of any tenant; it is kept short.
    op.execute("""
        CREATE INDEX page_index_tsv ON extractor.page_index USING gin (tsv) WITH (gin_pending_list_limit = 512)
    """)
    # The query is part of the policy, because `@@` is not leakproof: behind row security Postgres would not use the
    # index for a condition of the query itself. Without a query, a transaction sees all pages of its tenant.
    _own_tenant("page_index", "tenant = current_setting('pagemesh.tenant', true) AND tsv @@ extractor.search_scope()")


def _own_tenant(table: str, condition: str) -> None:
    """A query that forgets its tenant finds nothing; FORCE, because the service owns the table."""
    op.execute(f"ALTER TABLE extractor.{table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE extractor.{table} FORCE ROW LEVEL SECURITY")
    op.execute(f"""
        CREATE POLICY own_tenant ON extractor.{table} USING ({condition})
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
