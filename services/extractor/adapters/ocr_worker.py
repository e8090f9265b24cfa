"""The process that reads pictures: its parent loads the models once, and each fork reads one picture and ends.

Started as `python -m services.extractor.adapters.ocr_worker <socket fd> <memory bytes>`.
"""

import contextlib
import ctypes
import gc
import socket

import numpy as np

from services.extractor.adapters import ocr_protocol as wire
from services.extractor.adapters import sandbox
from services.extractor.adapters.ocr_models import Models
from services.extractor.adapters.zygote import serve

_OPEN_FILES = 16
_LIFETIME_CPU_S = 600
"""What the kernel lets a process compute, should the service not be there to end it."""


class OcrWorker:
    """`load` is for the parent, `work` for its children."""

    def __init__(self) -> None:
        self._models: Models | None = None

    def load(self) -> None:
        """Loads the models and reads with them once, so that nothing is imported or looked up after the fork."""
        self._models = Models()
        gc.collect()
        # Loading leaves 0.2 GB behind that nobody needs, and that every child would be charged with.
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        # Children share these pages for as long as nobody writes to them.
        gc.freeze()

    def work(self, orders: socket.socket, *, parent_pid: int, memory_bytes: int) -> None:
        """Reads one picture."""
        assert self._models is not None
        sandbox.die_with(parent_pid)
        sandbox.limit(memory_bytes=memory_bytes, open_files=_OPEN_FILES, cpu_s=_LIFETIME_CPU_S)
        try:
            sandboxed = sandbox.forbid_system_calls()
        except OSError:
            sandboxed = False
        # The service ends a process by closing its socket, whatever is on the way.
        with contextlib.suppress(ConnectionError, EOFError):
            orders.sendall(wire.READY.pack(sandboxed))
            width, height, budget_s = wire.PICTURE.unpack(_received(orders, wire.PICTURE.size))
            pixels = np.frombuffer(_received(orders, width * height), np.uint8).reshape(height, width)
            orders.sendall(wire.answer(self._models.read(pixels, budget_s=budget_s)))


def _received(orders: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = orders.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return data


if __name__ == "__main__":
    worker = OcrWorker()
    serve(worker.work, warm_up=worker.load)
