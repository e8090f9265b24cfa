"""What jobs have found in documents, as rows that SQL can read."""

from alembic import op

revision = "0037"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the view `extracted_rows`, which holds nothing itself."""
    # services/summarizer/adapters/job_result_encoding.py: a line that says what it is, and an array of fixed order, in
    # ASCII. Type json takes characters (\u0000) that jsonb refuses. With security_invoker the reader's own row security
    # holds, not that of the view's owner.
    op.execute(r"""
        CREATE VIEW summarizer.extracted_rows WITH (security_invoker = true) AS
        SELECT tenant, batch, id AS job, document, end_time,
               made -> 3 AS fields,
               json_array_length(made -> 5) = 0 AND json_array_length(made -> 6) = 0 AS valid
        FROM (
            SELECT tenant, batch, id, document, end_time,
                   convert_from(substring(result FROM 12), 'UTF8')::json AS made
            FROM summarizer.jobs
            WHERE state = 'SUCCEEDED' AND substring(result FOR 11) = convert_to(E'["fields"]\n', 'UTF8')
            OFFSET 0 -- the filter first: what is no extraction is no JSON from its twelfth byte on
        ) AS extracted
    """)
    op.execute("""
        COMMENT ON VIEW summarizer.extracted_rows IS
        'One row for each job that has looked for fields and ended well, until it expires or its document is deleted:
         the JSON that was found, and whether it satisfies its schema. docs/jobs.md says how to read it.'
    """)
