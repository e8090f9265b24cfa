"""One parser process as the service sees it: orders out, answers in, and how long it has been at what it does."""

import asyncio
import socket
from collections.abc import Callable
from enum import Enum, auto

from prometheus_client import Histogram

from services.extractor.adapters.parser_protocol import (
    CREDITS,
    CREDITS_AT_ONCE,
    Answer,
    AnswerKind,
    AnswerReader,
    Order,
    OrderKind,
    ProtocolError,
)
from services.extractor.adapters.process_meter import ProcessMeter

_INBOX = bytearray(256 * 1024)
"""What was read last, until it is cut into answers: bytes of its own for each read would be made large and shrunk."""
_COMPANY_S = 0.05
"""How long a page waits for others, unless it is the first or last one of its task: waking a reader, and telling its
caller, costs a good part of what a page does."""
_MAX_BACKLOG = CREDITS + 2
"""Answers that a process can send before it needs an order or a credit: its pages, what opens and what ends."""
_LAST = (AnswerKind.DONE, AnswerKind.REFUSED)
_BURST = 12
"""Pages that are worth waking a reader for: with what is left of its credits a process goes on meanwhile."""
_AT_ONCE_BYTES = 512 * 1024
_PIECES_OF_WORK = (AnswerKind.PAGE, AnswerKind.PAGE_FAILED, AnswerKind.PICTURE, AnswerKind.NO_PICTURE)


_PAGE_SECONDS = Histogram(
    "pagemesh_extractor_page_seconds",
    "How long a parser took for a page.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


class End(Enum):
    """Why a process is no more. DIED is what it did by itself; the rest was done to it."""

    DIED = auto()
    TIMEOUT = auto()
    MEMORY = auto()
    PROTOCOL = auto()
    ABANDONED = auto()
    STALLED = auto()
    RECYCLED = auto()
    SURPLUS = auto()
    STOPPED = auto()


class ParserProcess:
    """Answers are taken off the socket as they come, so that what is measured is the process and not the reader.

    A process that was taken over may say anything at any time. Between its first word and its first task, and between
    two tasks, it has nothing to say: whatever it says then ends it. `kill(pid)` is called once, whatever the end is.
    """

    def __init__(self, pid: int, orders: socket.socket, *, kill: Callable[[int], None]) -> None:
        self.pid = pid
        self.meter = ProcessMeter(pid)
        self.tenant: str | None = None
        """Whose files it has seen; it never sees another's."""
        self.pages = 0
        self.end: End | None = None
        self.sandboxed = False
        self.task = 0
        self.progress = 0
        """Grows with every answer and every credit after a pause."""
        self.since = 0.0
        """Loop time of the last progress."""
        self.begun = 0.0
        """Loop time at which its task began."""
        self.stopping = False
        """Whether its task was asked to end early."""
        self._outstanding = 0
        self._kept = 0
        self._told = 0
        """Pieces of work of its task so far."""
        self._busy = False
        self._started = False
        self._kill = kill
        self._socket = orders
        self._reader = AnswerReader()
        self._answers: list[Answer] = []
        self._company: asyncio.TimerHandle | None = None
        """Until when the answers that are here wait for others."""
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(orders, self._readable)

    @property
    def working(self) -> bool:
        """Whether the process is computing something that was asked for."""
        return self._busy and self._outstanding > 0

    def begin(self, order: Order, descriptor: int, *, rest: bytes = b"") -> None:
        """Gives it a task, `rest` of what is to be said of it, and the file that it is about. Raises OSError where the
        process is gone."""
        self.task = order.task
        self._busy, self._outstanding, self._kept, self._told = True, CREDITS, 0, 0
        self._advance()
        self.begun, self.stopping = self.since, False
        self._reader.takes_picture = order.kind is OrderKind.PICTURE
        socket.send_fds(self._socket, [order.pack() + rest], [descriptor])

    def credit(self, pages: int) -> None:
        """Allows so many more pages of the current task, at least CREDITS_AT_ONCE at a time."""
        if not self._busy or self.end is not None:
            return
        self._kept += pages
        if self._kept < CREDITS_AT_ONCE:
            return
        if self._outstanding == 0:
            self._advance()
        count, self._kept = self._kept, 0
        self._outstanding += count
        self._tell(Order(OrderKind.CREDIT, self.task, count=count))

    def stop(self) -> None:
        """Asks it, once, to end its task after the page that it is at."""
        if not self._busy or self.stopping or self.end is not None:
            return
        self.stopping = True
        self._tell(Order(OrderKind.STOP, self.task))

    async def answers(self) -> list[Answer]:
        """What it has said since: at least one answer, about _AT_ONCE_BYTES at most, and nothing once the process is
        gone and all was heard."""
        if self.end is None:
            await self._arrived.wait()
        self._arrived.clear()
        self._stop_waiting()
        count = size_bytes = 0
        while count < len(self._answers) and size_bytes < _AT_ONCE_BYTES:
            size_bytes += len(self._answers[count].content)
            count += 1
        answers, self._answers = self._answers[:count], self._answers[count:]
        if self._answers:
            self._arrived.set()
        return answers

    def close(self, end: End) -> None:
        """Kills it and stops listening, for the first reason that is given."""
        if self.end is not None:
            return
        self.end = end
        self._loop.remove_reader(self._socket)
        self._socket.close()
        # Closing the socket ends one that is as it was made. One that was taken over does not care.
        self._kill(self.pid)
        self.meter.close()
        self._wake()

    def _tell(self, order: Order) -> None:
        try:
            self._socket.send(order.pack())
        except OSError:
            self.close(End.DIED)

    def _readable(self) -> None:
        try:
            size_bytes = self._socket.recv_into(_INBOX)
        except BlockingIOError:
            return
        except OSError:
            size_bytes = 0
        if not size_bytes:
            self.close(End.DIED)
            return
        try:
            for answer in self._reader.feed(memoryview(_INBOX)[:size_bytes]):
                self._take(answer)
            if self._reader.unfinished and self._started and not self._busy:
                raise ProtocolError("words between two tasks")
        except ProtocolError:
            self.close(End.PROTOCOL)

    def _take(self, answer: Answer) -> None:
        if len(self._answers) >= _MAX_BACKLOG:
            raise ProtocolError("more answers than were asked for")
        if (answer.kind is AnswerKind.READY) == self._started or self._started != self._busy:
            raise ProtocolError("an answer to nothing")
        self._started = True
        if answer.kind in _PIECES_OF_WORK:
            if not self.working:
                raise ProtocolError("a page that nobody asked for")
            _PAGE_SECONDS.observe(self._loop.time() - self.since)
            self._outstanding -= 1
            self.pages += 1
            self._told += 1
        if answer.kind in _LAST:
            self._busy = False
        self._advance()
        self._answers.append(answer)
        if self._waits_for_company(answer):
            if self._company is None and not self._arrived.is_set():
                self._company = self._loop.call_later(_COMPANY_S, self._wake)
        else:
            self._wake()

    def _waits_for_company(self, answer: Answer) -> bool:
        """Whether more comes so soon that nobody need be woken for what is here."""
        if answer.kind is AnswerKind.OPENED:
            return True  # the first page is on its way
        return answer.kind is AnswerKind.PAGE and self._told > 1 and len(self._answers) < _BURST

    def _wake(self) -> None:
        self._stop_waiting()
        self._arrived.set()

    def _stop_waiting(self) -> None:
        if self._company is not None:
            self._company.cancel()
            self._company = None

    def _advance(self) -> None:
        self.progress += 1
        self.since = self._loop.time()
