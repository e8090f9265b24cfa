"""One parser process: takes orders from its socket, reads files with MuPDF and answers page by page."""

import contextlib
import gc
import mmap
import os
import socket
from collections.abc import Iterator

from services.extractor.adapters import parser_protocol as wire
from services.extractor.adapters import sandbox
from services.extractor.adapters.image_header import pixels
from services.extractor.adapters.mupdf_document import document_info, is_encrypted
from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.mupdf_pages import image_page, text_page
from services.extractor.adapters.mupdf_pictures import TooManyPixelsError, picture_answer
from services.extractor.adapters.mupdf_plain_page import plain_page
from services.extractor.adapters.parser_protocol import Fault, FlagBit, Format, Order, OrderKind, PartBit
from services.extractor.adapters.picture_protocol import PictureOrder

_FILE_TYPE = {Format.PDF: "pdf", Format.JPEG: "jpeg", Format.PNG: "png"}
_OPEN_FILES = 16
_SHRINK_PAGES = 200
"""Pages after which MuPDF's store is emptied. Built-in fonts are in it, and small documents that each load them anew
take half as long again."""
_SEEN_COLOURS = PartBit.MARKDOWN | PartBit.TABLES | PartBit.FLAGS
"""Parts that depend on what can be told apart by its colour."""
_OUT_OF_MEMORY = ("malloc", "calloc", "realloc", "out of memory", "exception_alloc")


def work(orders: socket.socket, *, parent_pid: int, memory_bytes: int) -> None:
    """Obeys until the other end is closed."""
    sandbox.die_with(parent_pid)
    sandbox.limit(memory_bytes=memory_bytes, open_files=_OPEN_FILES, cpu_s=wire.LIFETIME_CPU_S)
    try:
        sandboxed = sandbox.forbid_system_calls()
    except OSError:
        sandboxed = False
    worker = Worker(orders)
    orders.sendall(wire.ready(sandboxed=sandboxed))
    # The service ends a process by closing its socket, whatever is on the way.
    with contextlib.suppress(ConnectionError):
        while worker.obey():
            pass


class Worker:
    """The reading of files, one task after the other."""

    def __init__(self, orders: socket.socket) -> None:
        self._socket = orders
        self._credits = 0
        self._task = 0
        self._stopped = False
        self._pages = 0

    def obey(self) -> bool:
        """Waits for one order and carries it out. False where there will be no more."""
        record, descriptors, _, _ = socket.recv_fds(self._socket, Order.SIZE, 1)
        if len(record) != Order.SIZE:
            return False
        order = Order.unpack(record)
        if order.kind not in (OrderKind.PARSE, OrderKind.PICTURE):
            return True  # a credit or a stop for a task that has ended
        self._credits, self._task, self._stopped = wire.CREDITS, order.task, False
        try:
            if order.kind is OrderKind.PICTURE:
                record = self._socket.recv(PictureOrder.SIZE, socket.MSG_WAITALL)
                self._picture(order, PictureOrder.unpack(record), descriptors[0])
            else:
                password = self._socket.recv(order.password_bytes, socket.MSG_WAITALL) if order.password_bytes else b""
                self._parse(order, descriptors[0], password.decode())
        finally:
            os.close(descriptors[0])
            self._forget()
        return True

    def _forget(self) -> None:
        """Gives back what MuPDF keeps between documents: warnings, and now and then streams, fonts and glyphs."""
        pymupdf.TOOLS.reset_mupdf_warnings()
        if self._pages >= _SHRINK_PAGES:
            self._pages = 0
            pymupdf.TOOLS.store_shrink(100)
            pymupdf.TOOLS.glyph_cache_empty()

    def _parse(self, order: Order, descriptor: int, password: str) -> None:
        # Colour profiles are a fifth of the time that text takes, and say nothing about it.
        pymupdf.TOOLS.set_icc(bool(order.parts & _SEEN_COLOURS))
        try:
            with _opened(descriptor, Format(order.format), order.max_pixels) as document:
                self._send_document(document, order, password)
        except Exception as exc:  # noqa: BLE001  # whatever MuPDF raises means that it cannot read the file
            self._socket.sendall(wire.refused(_fault_in(exc)))

    def _send_document(self, document: pymupdf.Document, order: Order, password: str) -> None:
        fault = _fault_of(document, order, password)
        if fault is not None:
            self._socket.sendall(wire.refused(fault))
            return
        page_count = document.page_count
        info = document_info(document, PartBit(order.parts))
        self._socket.sendall(wire.opened(page_count, _flags(document), info))
        last_page, ended = min(order.last_page, page_count), False
        for number in range(order.first_page, last_page + 1):
            if not self._may_go_on() and number > order.first_page:
                break
            self._pages += 1
            answer = _page_answer(document, number, order)
            ended = number == last_page
            # The end comes with the last page, so that whoever reads wakes up once.
            self._socket.sendall(answer + wire.done() if ended else answer)
        if not ended:
            self._socket.sendall(wire.done())

    def _picture(self, order: Order, wanted: PictureOrder, descriptor: int) -> None:
        pymupdf.TOOLS.set_icc(True)
        try:
            with _opened(descriptor, Format(order.format), wanted.max_pixels) as document:
                fault = _fault_of(document, order, wanted.password)
                if fault is not None:
                    self._socket.sendall(wire.refused(fault))
                    return
                self._socket.sendall(wire.opened(document.page_count, _flags(document)))
                self._pages += 1
                for piece in _picture_answer(document, order.first_page, wanted):
                    self._socket.sendall(piece)
                self._socket.sendall(wire.done())
        except Exception as exc:  # noqa: BLE001  # whatever MuPDF raises means that it cannot read the file
            self._socket.sendall(wire.refused(_fault_in(exc)))

    def _may_go_on(self) -> bool:
        """Goes on only as far ahead of the reader as it allows. False once the task is to end."""
        while not self._stopped:
            try:
                # Looks whether there is an order, or waits for one where nothing can be done without.
                record = self._socket.recv(Order.SIZE, socket.MSG_DONTWAIT if self._credits else socket.MSG_WAITALL)
            except BlockingIOError:
                break
            if len(record) != Order.SIZE:
                os._exit(0)
            order = Order.unpack(record)
            if order.task == self._task:
                self._credits += order.count
                self._stopped = order.kind is OrderKind.STOP
        self._credits -= 1
        return not self._stopped


def _fault_of(document: pymupdf.Document, order: Order, password: str) -> Fault | None:
    """Why the document is refused, if it is."""
    if order.format == Format.PDF and not document.is_pdf:
        return Fault.CORRUPT
    if document.needs_pass and not document.authenticate(password):
        return Fault.WRONG_PASSWORD if password else Fault.ENCRYPTED
    return Fault.NO_PAGES if document.page_count < 1 else None


def _picture_answer(document: pymupdf.Document, number: int, wanted: PictureOrder) -> tuple[bytes, ...]:
    try:
        return picture_answer(document, number, wanted)
    except TooManyPixelsError:
        return (wire.page_failed(number, Fault.MEMORY),)
    except Exception as exc:  # noqa: BLE001  # whatever MuPDF raises costs this picture only
        return (wire.page_failed(number, Fault.MEMORY if _is_memory(exc) else Fault.CORRUPT),)


def _page_answer(document: pymupdf.Document, number: int, order: Order) -> bytes:
    try:
        if order.format == Format.PDF and order.parts == PartBit.TEXT:
            plain = plain_page(document, number)
            if plain is not None:
                return wire.page(number, plain)
        page = document.load_page(number - 1)
        if order.format == Format.PDF:
            return wire.page(number, text_page(page, number, PartBit(order.parts)))
        return wire.page(number, image_page(page, number, PartBit(order.parts)))
    except Exception as exc:  # noqa: BLE001  # whatever MuPDF raises costs this page only
        return wire.page_failed(number, Fault.MEMORY if _is_memory(exc) else Fault.CORRUPT)


@contextlib.contextmanager
def _opened(descriptor: int, file_format: Format, max_pixels: int) -> Iterator[pymupdf.Document]:
    """The document, read through a mapping of the file: nothing is copied, and no path is needed. Raises
    TooManyPixelsError for an image that has more, before MuPDF sees it."""
    # The size is told, because mmap would ask by a call that can look at any path and is therefore not allowed.
    size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
    with mmap.mmap(descriptor, size_bytes, access=mmap.ACCESS_READ) as mapping:
        if file_format is not Format.PDF and pixels(mapping, file_format) > max_pixels:
            raise TooManyPixelsError
        view = memoryview(mapping)
        document = pymupdf.open(stream=view, filetype=_FILE_TYPE[file_format])
        try:
            yield document
        finally:
            document.close()
            document.stream = None
            # MuPDF reads through a pointer into the mapping: whatever still holds it goes before the mapping does.
            del document
            gc.collect(0)
            view.release()


def _flags(document: pymupdf.Document) -> FlagBit:
    flags = FlagBit(0)
    if document.is_pdf and document.is_repaired:
        flags |= FlagBit.REPAIRED
    if document.is_pdf and is_encrypted(document):
        flags |= FlagBit.ENCRYPTED
    return flags


def _fault_in(exc: Exception) -> Fault:
    if isinstance(exc, TooManyPixelsError):
        return Fault.TOO_MANY_PIXELS
    return Fault.MEMORY if _is_memory(exc) else Fault.CORRUPT


def _is_memory(exc: BaseException) -> bool:
    """Whether a fault is the memory limit; MuPDF says so in its message only, which goes no further than here."""
    seen: BaseException | None = exc
    while seen is not None:
        text = str(seen).lower()
        if isinstance(seen, MemoryError) or any(word in text for word in _OUT_OF_MEMORY):
            return True
        seen = seen.__cause__
    return False
