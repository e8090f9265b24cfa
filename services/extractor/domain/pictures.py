"""Pictures: a page as it looks, and the images that are in a document."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from services.extractor.domain.documents import Document, document_id, not_found
from services.extractor.domain.drawn import MAX_KEPT_BYTES, DrawnKey, DrawnPages
from services.extractor.domain.faults import document_fault, out_of_range
from services.extractor.domain.flights import OpenFiles
from services.extractor.domain.pages import (
    FailedPage,
    PageFault,
    ParserLost,
    Picture,
    PictureFormat,
    Refused,
)
from services.extractor.domain.ports import (
    Clock,
    DocumentRepository,
    ObjectStore,
    PictureParser,
    PictureTask,
    ReadableFile,
)
from services.runtime.errors import (
    FailedPrecondition,
    FieldViolation,
    OutOfRange,
    ResourceExhausted,
    Unavailable,
)

DEFAULT_DPI = 200
DEFAULT_JPEG_QUALITY = 95
_EXPIRY_BATCH = 500
_EXPIRY_BATCHES = 100
"""What is left is for the next time."""
_EXPLANATION = {
    PageFault.CORRUPT: "The page is damaged.",
    PageFault.TIMEOUT: "Drawing the page takes too long. Ask for fewer dots per inch.",
    PageFault.MEMORY: "Drawing the page takes too much memory, or an image on it has too many pixels.",
    PageFault.CRASHED: "Drawing the page ends its parser.",
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A page to be drawn. 0 as a number stands for the first page, DEFAULT_DPI and DEFAULT_JPEG_QUALITY."""

    tenant: str
    name: str
    page: int
    dpi: int
    format: PictureFormat
    jpeg_quality: int
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ImageOf:
    """The image with that index in the page's list; 0 as the page is the first one."""

    tenant: str
    name: str
    page: int
    index: int
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """`queue_wait_s` bounds the wait for a parser; `in_hand_bytes` what pictures may weigh that callers have not taken
    yet, of one tenant a quarter of that."""

    queue_wait_s: float
    in_hand_bytes: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    document: Document
    page: int
    format: PictureFormat
    dpi: int = DEFAULT_DPI
    jpeg_quality: int = DEFAULT_JPEG_QUALITY
    index: int | None = None
    password: str = field(default="", repr=False)

    @property
    def key(self) -> DrawnKey:
        quality = self.jpeg_quality if self.format is PictureFormat.JPEG else 0
        return DrawnKey(self.document.tenant, self.document.id, self.page, self.dpi, self.format, quality)

    def task(self, file: ReadableFile, *, alone: bool, wait_s: float) -> PictureTask:
        return PictureTask(
            self.document.tenant,
            file,
            self.document.media_type,
            self.page,
            self.format,
            dpi=self.dpi,
            jpeg_quality=self.jpeg_quality,
            index=self.index,
            alone=alone,
            wait_s=wait_s,
            password=self.password,
        )


@dataclass(slots=True)
class _Turn:
    """Those who want the same picture at a time: what cannot be drawn costs its time-outs once for all of them."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    fault: FailedPrecondition | None = None


class Pictures:
    """Draws pages, once for all who ask for the same, and takes images out of documents."""

    def __init__(
        self,
        *,
        repository: DocumentRepository,
        store: ObjectStore,
        parser: PictureParser,
        drawn: DrawnPages,
        clock: Clock,
        limits: PictureLimits,
    ) -> None:
        self._repository = repository
        self._files = OpenFiles(store)
        self._parser = parser
        self._drawn = drawn
        self._clock = clock
        self._limits = limits
        self._in_hand = _InHand(limits.in_hand_bytes)
        self._turns: dict[DrawnKey, _Turn] = {}

    @contextlib.asynccontextmanager
    async def page(self, drawing: Drawing, *, remaining_s: Callable[[], float | None]) -> AsyncIterator[Picture]:
        """The drawn page, which counts as in hand until the context ends.

        Raises NotFound, OutOfRange PAGE_OUT_OF_RANGE, FailedPrecondition with a DocumentFault, a PageFault or
        PICTURE_TOO_LARGE, ResourceExhausted TOO_MANY_PICTURES, and what `PictureParser.picture` raises.
        """
        self._in_hand.admit(drawing.tenant)
        wanted = _Wanted(
            await self._document(drawing.tenant, drawing.name),
            page=drawing.page or 1,
            format=drawing.format,
            dpi=drawing.dpi or DEFAULT_DPI,
            jpeg_quality=drawing.jpeg_quality or DEFAULT_JPEG_QUALITY,
            password=drawing.password,
        )
        # What needs a password is kept nowhere, and nobody is given without one what was drawn with one.
        picture = await (self._made if drawing.password else self._kept_or_made)(wanted, remaining_s)
        with self._in_hand.holding(drawing.tenant, picture):
            yield picture

    @contextlib.asynccontextmanager
    async def image(self, image: ImageOf, *, remaining_s: Callable[[], float | None]) -> AsyncIterator[Picture]:
        """The image, as `page`; also raises OutOfRange IMAGE_OUT_OF_RANGE."""
        self._in_hand.admit(image.tenant)
        wanted = _Wanted(
            await self._document(image.tenant, image.name),
            page=image.page or 1,
            format=PictureFormat.PNG,
            index=image.index,
            password=image.password,
        )
        picture = await self._made(wanted, remaining_s)
        with self._in_hand.holding(image.tenant, picture):
            yield picture

    async def expire(self) -> None:
        """Removes drawn pages whose day is over. Raises Unavailable."""
        for _ in range(_EXPIRY_BATCHES):
            if await self._drawn.expire(now=self._clock.now(), limit=_EXPIRY_BATCH) < _EXPIRY_BATCH:
                return

    async def _document(self, tenant: str, name: str) -> Document:
        document = await self._repository.get(tenant, document_id(name))
        if document is None:
            raise not_found(name)
        return document

    async def _kept_or_made(self, wanted: _Wanted, remaining_s: Callable[[], float | None]) -> Picture:
        turn = self._turns.setdefault(wanted.key, _Turn())
        turn.users += 1
        try:
            # Whoever asks for the same meanwhile waits, and then finds it kept, or hears why there is none.
            async with turn.lock:
                if turn.fault is not None:
                    raise turn.fault
                return await self._got(wanted, remaining_s)
        except FailedPrecondition as exc:
            turn.fault = exc
            raise
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[wanted.key]
                turn.fault = None  # its traceback leads back here

    async def _got(self, wanted: _Wanted, remaining_s: Callable[[], float | None]) -> Picture:
        kept = await self._drawn.get(wanted.key)
        if kept is not None:
            return kept
        picture = await self._made(wanted, remaining_s)
        if len(picture.content) <= MAX_KEPT_BYTES:
            # There is a picture, whether or not it can be kept.
            with contextlib.suppress(Unavailable):
                await self._drawn.keep(wanted.key, picture, now=self._clock.now())
        return picture

    async def _made(self, wanted: _Wanted, remaining_s: Callable[[], float | None]) -> Picture:
        try:
            async with self._files.of(wanted.document) as file:
                outcome = await self._tried_twice(wanted, file, remaining_s)
        except FileNotFoundError as exc:  # deleted between the row and the bytes
            raise not_found(wanted.document.name) from exc
        if isinstance(outcome, Refused):
            raise document_fault(outcome.fault)
        if isinstance(outcome, FailedPage):
            raise FailedPrecondition(outcome.fault.value, _EXPLANATION[outcome.fault])
        return outcome

    async def _tried_twice(
        self, wanted: _Wanted, file: ReadableFile, remaining_s: Callable[[], float | None]
    ) -> Picture | Refused | FailedPage:
        """A page that takes its process with it is tried once more, alone."""
        with contextlib.suppress(ParserLost):
            return await self._parser.picture(wanted.task(file, alone=False, wait_s=self._wait_s(remaining_s)))
        try:
            return await self._parser.picture(wanted.task(file, alone=True, wait_s=self._wait_s(remaining_s)))
        except ParserLost as lost:
            return FailedPage(wanted.page, lost.page_fault)

    def _wait_s(self, remaining_s: Callable[[], float | None]) -> float:
        left_s = remaining_s()
        return self._limits.queue_wait_s if left_s is None else min(left_s, self._limits.queue_wait_s)


class _InHand:
    """What pictures weigh that callers have not taken yet: readers that stand still cost others nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: Counter[str] = Counter()

    def admit(self, tenant: str) -> None:
        """Raises ResourceExhausted where enough is in hand already, all in all or of this tenant."""
        if self._held.total() >= self._max_bytes or self._held[tenant] >= self._max_bytes // 4:
            raise ResourceExhausted(
                "TOO_MANY_PICTURES",
                "Too many pictures are on their way already. Take those that you asked for, and try again shortly.",
                retry_after_s=1.0,
            )

    @contextlib.contextmanager
    def holding(self, tenant: str, picture: Picture) -> Iterator[None]:
        """Counts the picture. Raises as `admit`: many who were let in together have theirs one after the other."""
        self.admit(tenant)
        self._held[tenant] += len(picture.content)
        try:
            yield
        finally:
            self._held[tenant] -= len(picture.content)
            if not self._held[tenant]:
                del self._held[tenant]


def no_such_page(page_count: int) -> OutOfRange:
    """The error for a page past the end."""
    message = out_of_range(page_count)
    return OutOfRange("PAGE_OUT_OF_RANGE", message, fields=[FieldViolation("page", message)])


def no_such_image(count: int) -> OutOfRange:
    """The error for an index past the end of a page's images."""
    message = f"The page has {count} images, of which the first has the index 0."
    return OutOfRange("IMAGE_OUT_OF_RANGE", message, fields=[FieldViolation("index", message)])


def too_large() -> FailedPrecondition:
    """The error for a picture that is larger than what is sent."""
    return FailedPrecondition(
        "PICTURE_TOO_LARGE", "The picture is larger than 24 MiB. Ask for a JPEG, or for fewer dots per inch."
    )
