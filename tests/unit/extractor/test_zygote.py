"""A parent of processes by itself: how it ends."""

import signal
import socket

from services.extractor.adapters.zygote import Zygote
from services.extractor.adapters.zygote_protocol import Event, EventKind


def _nothing(orders: socket.socket, *, parent_pid: int, memory_bytes: int) -> None:
    """Never called: nothing is forked."""


def test_signals_are_told_to_nobody_once_it_has_ended() -> None:
    ours, theirs = socket.socketpair()
    handler, told = signal.getsignal(signal.SIGCHLD), signal.set_wakeup_fd(-1)
    try:
        with theirs, ours:
            ours.shutdown(socket.SHUT_WR)
            Zygote(theirs, memory_bytes=1 << 30, work=_nothing).run()
            assert Event.unpack(ours.recv(Event.SIZE)).kind is EventKind.READY
        # Its sockets are closed by now: a child that ends would be told to whatever has their numbers next.
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGCHLD, handler)
        signal.set_wakeup_fd(told)
