"""Traces of texts in Postgres, beside their answers: they go with those, whatever removes them."""

import hashlib
from collections.abc import Sequence
from typing import Any

from services.database.pool import Pool, translate
from services.summarizer.adapters import encoding
from services.summarizer.adapters.postgres_results import TOUCH, stored_key
from services.summarizer.domain.likeness import Marks
from services.summarizer.domain.similar import Candidate, Trace

_MOST_OF_BAND = 32
"""Texts that are looked at for one band: many may share it, and one that fits is enough."""

FIND = """
    SELECT results.answer, results.document, coalesce(purges.generation, 0), chunks.sketch, chunks.words, chunks.stood,
           chunks.first_page, results.content_key, results.use_time < now() - interval '1 day'
    FROM (
        SELECT content_key, count(*) AS shared
        FROM unnest(%(bands)s::bytea[]) AS asked (band) CROSS JOIN LATERAL (
            SELECT content_key FROM summarizer.similar_bands
            WHERE tenant = %(tenant)s AND similar_bands.band = asked.band
            ORDER BY content_key LIMIT %(most)s) AS sharing
        GROUP BY content_key ORDER BY shared DESC, content_key LIMIT %(limit)s
    ) AS found
    JOIN summarizer.similar_chunks AS chunks ON chunks.tenant = %(tenant)s AND chunks.content_key = found.content_key
    JOIN summarizer.results ON results.tenant = %(tenant)s AND results.content_key = found.content_key
    LEFT JOIN summarizer.purges ON purges.tenant = %(tenant)s AND purges.document = results.document
    ORDER BY found.shared DESC, found.content_key
"""
# The answer's row is locked, so that it does not go before what hangs on it is there.
_KEEP = """
    WITH bought AS (
        SELECT content_key FROM summarizer.results
        WHERE tenant = %(tenant)s AND content_key = %(key)s AND document <> ''
        FOR KEY SHARE
    ), kept AS (
        INSERT INTO summarizer.similar_chunks (tenant, content_key, sketch, words, stood, first_page)
        SELECT %(tenant)s, content_key, %(sketch)s, %(words)s, %(stood)s, %(first_page)s FROM bought
        ON CONFLICT (tenant, content_key) DO NOTHING
        RETURNING content_key
    )
    INSERT INTO summarizer.similar_bands (tenant, band, content_key)
    SELECT %(tenant)s, band, content_key FROM kept CROSS JOIN unnest(%(bands)s::bytea[]) AS own (band)
    ON CONFLICT DO NOTHING
"""
_AS_TENANT = "SELECT set_config('pagemesh.tenant', %(tenant)s, true)"


class PostgresSimilar:
    """SimilarBook on Postgres. Row-level security shows each transaction its own tenant's texts only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, tenant: str, bands: Sequence[bytes], limit: int) -> tuple[Candidate, ...]:
        """Those with most of the bands first."""
        row = {"tenant": tenant, "bands": _stored(bands), "limit": limit, "most": _MOST_OF_BAND}
        with translate("similar.find"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_AS_TENANT, row)
                rows = await (await connection.execute(FIND, row)).fetchall()
                if old := [stored for *_, stored, is_old in rows if is_old]:
                    await connection.execute(TOUCH, {"tenant": tenant, "keys": old})
        return tuple(map(_candidate, rows))

    async def keep(self, tenant: str, traces: Sequence[Trace]) -> None:
        """Keeps those whose answers are there."""
        with translate("similar.keep"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_AS_TENANT, {"tenant": tenant})
                for trace in traces:
                    await connection.execute(_KEEP, _row(tenant, trace))


def _row(tenant: str, trace: Trace) -> dict[str, object]:
    return {
        "tenant": tenant,
        "key": stored_key(trace.key),
        "sketch": trace.drawn.sketch,
        "words": trace.marks.words,
        "stood": trace.marks.stood,
        "first_page": trace.first_page,
        "bands": _stored(trace.drawn.bands),
    }


def _stored(bands: Sequence[bytes]) -> list[bytes]:
    """Bands of answers that another version has written are not found, as those answers are not."""
    return [hashlib.sha256(b"%d:%b" % (encoding.VERSION, band)).digest()[:16] for band in bands]


def _candidate(row: tuple[Any, ...]) -> Candidate:
    answer, document, generation, sketch, words, stood, first_page, *_ = row
    marks = Marks(bytes(words), bytes(stood))
    return Candidate(encoding.decode_answer(answer), document, generation, bytes(sketch), marks, first_page)
