"""Searching by meaning: pages whose vectors are near that of the query, and one order of both lists."""

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from services.runtime.errors import DeadlineExceeded, FieldViolation, InvalidArgument, PagemeshError, Unavailable

if TYPE_CHECKING:
    from services.extractor.domain.search import Filters, FoundPage

CANDIDATES = 100
"""So many pages of each list are put into one order; behind them a search by meaning ends."""
RANK_CONSTANT = 60
"""Of reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009."""
MAX_DIMENSIONS = 3_072
NOTHING_EMBEDDED = "NOTHING_EMBEDDED"
"""Why a search goes by words alone where no page of the tenant has a vector of the deployment's model."""
_MARK_BYTES = 5
_NOT_ALLOWED = "MODEL_NOT_ALLOWED"
"""The tenant does not let the model see its texts: then words alone are its own wish."""


class Mode(Enum):
    """What a search goes by."""

    WORDS = "words"
    HYBRID = "hybrid"
    VECTORS = "vectors"


@dataclass(frozen=True, slots=True)
class Vector:
    """Half-precision numbers, little-endian, and the model that made them, `{provider}/{model}`."""

    model: str
    data: bytes

    @property
    def numbers(self) -> tuple[float, ...]:
        """Them. Raises InvalidArgument VECTOR_INVALID where they are none, too many, not finite, or all zero."""
        count, odd = divmod(len(self.data), 2)
        numbers = () if odd or count > MAX_DIMENSIONS else struct.unpack(f"<{count}e", self.data)
        if not any(numbers) or not all(map(math.isfinite, numbers)):
            message = f"passages[].vector: must be 1 to {MAX_DIMENSIONS:,} finite half-precision numbers, not all zero"
            raise InvalidArgument("VECTOR_INVALID", message, fields=[FieldViolation("passages[].vector", message)])
        return numbers


@dataclass(frozen=True, slots=True)
class Passage:
    """Where a vector belongs: `part` counts the passages of a page from 0."""

    page: int
    part: int
    vector: Vector


class Embedder(Protocol):
    """Who makes vectors of queries, at the cost of the tenant of the current call.

    Raises FailedPrecondition EMBEDDING_NOT_CONFIGURED, ResourceExhausted, Unavailable, DeadlineExceeded.
    """

    async def model(self, *, timeout_s: float) -> str:
        """The deployment's model; costs nothing."""

    async def embed(self, query: str, *, timeout_s: float) -> Vector:
        """The vector of a query."""


class VectorIndex(Protocol):
    """Vectors of pages. Every method raises Unavailable where the database is down."""

    async def store(self, tenant: str, document_id: str, passages: Sequence[Passage]) -> None:
        """In the place of what these pages had; those of another model go from the whole document. Raises NotFound,
        InvalidArgument VECTOR_INVALID."""

    async def has_any(self, tenant: str, model: str) -> bool:
        """Whether any page of the tenant has a vector of the model."""

    async def nearest(
        self, tenant: str, vector: Vector, filters: "Filters", *, limit: int, timeout_s: float
    ) -> Sequence["FoundPage"]:
        """At most `limit` pages, the nearest first; `score` is the cosine of the nearest passage, at least 0. Raises
        DeadlineExceeded SEARCH_TIMEOUT."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """The query's vector; without one the search goes by words alone, for `degraded`."""

    vector: Vector | None
    degraded: str = ""


class Meanings:
    """Asks for vectors of queries. Nothing is paid where no page could be found by one."""

    def __init__(self, *, embedder: Embedder, index: VectorIndex) -> None:
        self._embedder = embedder
        self.index = index

    async def of(self, tenant: str, query: str, *, timeout_s: float) -> Meaning:
        """The query's. Raises FailedPrecondition EMBEDDING_NOT_CONFIGURED, and what the ledger says about money."""
        try:
            model = await self._embedder.model(timeout_s=timeout_s)
            if not await self.index.has_any(tenant, model):
                return Meaning(None, NOTHING_EMBEDDED)
            return Meaning(await self._embedder.embed(query, timeout_s=timeout_s))
        except PagemeshError as exc:
            may_not = exc.reason == _NOT_ALLOWED
            if may_not or isinstance(exc, Unavailable | DeadlineExceeded) or exc.reason.startswith("PROVIDER_"):
                return Meaning(None, exc.reason)
            raise


def fused(*lists: Sequence["FoundPage"]) -> list["FoundPage"]:
    """One order by reciprocal rank: a page's score is the sum of 1 / (60 + rank) over the lists that have it."""
    scores: dict[tuple[str, int], float] = {}
    pages: dict[tuple[str, int], FoundPage] = {}
    for found in lists:
        for rank, page in enumerate(found, start=1):
            key = (page.document_id, page.page)
            scores[key] = scores.get(key, 0.0) + 1 / (RANK_CONSTANT + rank)
            pages.setdefault(key, page)
    order = sorted(pages, key=lambda key: (-scores[key], key))
    return [replace(pages[key], score=scores[key]) for key in order]


def mark_of(page: "FoundPage") -> bytes:
    """Stands for a page that was told of, in a page token. Ranks shift when pages are added or erased, so a place in
    the order would not do: the next part is whatever was not told of yet."""
    return hashlib.sha256(f"{page.document_id}/{page.page}".encode()).digest()[:_MARK_BYTES]


def marks_in(data: bytes) -> frozenset[bytes]:
    """Those of a token. Raises ValueError where it cannot be one of ours."""
    if len(data) % _MARK_BYTES or len(data) > 2 * CANDIDATES * _MARK_BYTES:
        raise ValueError("not a list of marks")
    return frozenset(data[at : at + _MARK_BYTES] for at in range(0, len(data), _MARK_BYTES))


def no_exclusions(excluded: Sequence[object]) -> None:
    """Raises InvalidArgument SEARCH_QUERY_INVALID where there are any: a meaning cannot be excluded."""
    if excluded:
        message = "query: nothing can be excluded from a search by meaning; search by words, or leave -word out"
        raise InvalidArgument("SEARCH_QUERY_INVALID", message, fields=[FieldViolation("query", message)])
