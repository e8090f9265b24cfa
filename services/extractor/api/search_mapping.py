"""Between the contract's messages about searching and the domain's values."""

import datetime as dt

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh.extractor.v1 import search_pb2, vectors_pb2
from services.extractor.domain.hybrid import Mode, Passage, Vector
from services.extractor.domain.search import Hit, Search, SearchResults
from services.extractor.domain.search_marks import Snippet
from services.runtime.errors import FieldViolation, InvalidArgument

_MODES = {
    vectors_pb2.SEARCH_MODE_UNSPECIFIED: Mode.WORDS,
    vectors_pb2.SEARCH_MODE_WORDS: Mode.WORDS,
    vectors_pb2.SEARCH_MODE_HYBRID: Mode.HYBRID,
    vectors_pb2.SEARCH_MODE_VECTORS: Mode.VECTORS,
}


def search(tenant: str, request: pb.SearchPagesRequest) -> Search:
    """What is asked for."""
    return Search(
        tenant=tenant,
        query=request.query,
        page_size=request.page_size,
        page_token=request.page_token,
        documents=tuple(request.documents),
        languages=tuple(request.languages),
        stored_after=_time(request, "stored_after"),
        stored_before=_time(request, "stored_before"),
        marked=request.view != search_pb2.SEARCH_VIEW_BASIC,
        mode=_MODES[request.mode],
    )


def results(value: SearchResults) -> pb.SearchPagesResponse:
    """What was found."""
    return pb.SearchPagesResponse(
        hits=[_hit(hit) for hit in value.hits],
        next_page_token=value.next_page_token,
        degraded=bool(value.degraded),
        degraded_reason=value.degraded,
    )


def passages(request: vectors_pb2.StorePageVectorsRequest) -> list[Passage]:
    """Vectors to keep. Raises InvalidArgument VECTOR_INVALID where they are not all of one length."""
    found = [Passage(each.page, each.part, Vector(request.model, each.vector)) for each in request.passages]
    if len({len(each.vector.data) for each in found}) != 1 or len({(each.page, each.part) for each in found}) != len(
        found
    ):
        message = "passages: must be of one length, and each page and part once"
        raise InvalidArgument("VECTOR_INVALID", message, fields=[FieldViolation("passages", message)])
    return found


def _hit(hit: Hit) -> search_pb2.SearchHit:
    return search_pb2.SearchHit(
        document=f"documents/{hit.found.document_id}",
        display_name=hit.found.display_name,
        page=hit.found.page,
        score=hit.found.score,
        snippets=[_snippet(snippet) for snippet in hit.marks.snippets],
        boxes=[page_pb2.BoundingBox(x0=box.x0, y0=box.y0, x1=box.x1, y1=box.y1) for box in hit.marks.boxes],
        language=hit.found.language,
    )


def _snippet(snippet: Snippet) -> search_pb2.SearchSnippet:
    highlights = [search_pb2.TextRange(start=start, end=end) for start, end in snippet.highlights]
    return search_pb2.SearchSnippet(text=snippet.text, highlights=highlights)


def _time(request: pb.SearchPagesRequest, field: str) -> dt.datetime | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    try:
        value: dt.datetime = getattr(request, field).ToDatetime(tzinfo=dt.UTC)
    except (ValueError, OverflowError) as exc:
        message = f"{field}: must be a time between the years 1 and 9999"
        raise InvalidArgument("INVALID_FIELD", message, fields=[FieldViolation(field, message)]) from exc
    return value
