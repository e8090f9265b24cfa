"""Pictures of pages in memory, for tests and for trying things out."""

from services.runtime.call import current_identity
from services.runtime.errors import NotFound, OutOfRange
from services.summarizer.domain.pictures import Picture


class MemoryPictures:
    """PagePictures that are put in by tenant, document and page."""

    def __init__(self) -> None:
        self._pictures: dict[tuple[str, str, int], bytes | Exception] = {}

    def put(self, tenant: str, document: str, page: int, content: bytes | Exception) -> None:
        """Keeps a picture, or the error that drawing it ends with."""
        self._pictures[tenant, document, page] = content

    async def draw(self, document: str, page: int) -> Picture:
        """The picture that was put in."""
        tenant = current_identity().tenant
        if not any(known[:2] == (tenant, document) for known in self._pictures):
            raise NotFound("DOCUMENT_NOT_FOUND", f"There is no {document}.")
        content = self._pictures.get((tenant, document, page))
        if content is None:
            raise OutOfRange("PAGE_OUT_OF_RANGE", f"There is no page {page}.")
        if isinstance(content, Exception):
            raise content
        return Picture("image/jpeg", content)
