"""Uploads on their way in, on local disk: bounded in number, hashed as they come, gone when they end."""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections import Counter as Multiset
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from prometheus_client import Counter, Gauge

from services.runtime.errors import ResourceExhausted, Unavailable

_BUFFER_BYTES = 1024 * 1024
"""How much is gathered before a thread writes it: the cost of changing threads is then lost in the writing."""
_PREFIX = "upload-"
_ONE_OF_FOUR = 4
"""One tenant gets so small a part of the places: it takes four with nothing but slow bodies to close them all."""

_SPOOLED = Counter("pagemesh_extractor_spooled_bytes", "Bytes of uploads that were written to the spool.")
_OPEN = Gauge("pagemesh_extractor_uploads_open", "Uploads that are being received.")


class DiskSpool:
    """Implements the port `Spool` in a directory that is this process's alone."""

    def __init__(self, directory: Path, *, max_files: int) -> None:
        """Makes the directory and empties it of what an earlier process left."""
        self._directory = directory
        self._max_files = max_files
        self._files: Multiset[str] = Multiset()
        """How many are open, by tenant."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in directory.glob(f"{_PREFIX}*"):
            left.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def file(self, tenant: str) -> AsyncIterator["DiskSpooledFile"]:
        """See the port."""
        own = max(1, self._max_files // _ONE_OF_FOUR)
        if self._files.total() >= self._max_files or self._files[tenant] >= own:
            raise ResourceExhausted(
                "TOO_MANY_UPLOADS", "Too many uploads are under way. Try again shortly.", retry_after_s=1.0
            )
        self._files[tenant] += 1
        try:
            with _OPEN.track_inprogress():
                with _translated():
                    # Not in a thread: a cancelled wait would leave a file that nobody knows of.
                    descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=self._directory)
                spooled = DiskSpooledFile(Path(name), descriptor)
                try:
                    yield spooled
                finally:
                    spooled.close()
        finally:
            self._files[tenant] -= 1
            if not self._files[tenant]:
                del self._files[tenant]


class DiskSpooledFile:
    """Implements the port `SpooledFile`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._writing: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """See the port."""
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            await self._flush()

    async def finish(self) -> str:
        """See the port."""
        await self._flush()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Removes the file. A write that a cancelled upload left running keeps the descriptor until it ends."""
        self.path.unlink(missing_ok=True)
        if self._writing is not None and not self._writing.done():
            self._writing.add_done_callback(lambda _: os.close(self._descriptor))
        else:
            os.close(self._descriptor)

    async def _flush(self) -> None:
        data, self._buffer = bytes(self._buffer), bytearray()
        with _translated():
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._write_out, data))
            await asyncio.shield(self._writing)

    def _write_out(self, data: bytes) -> None:
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        _SPOOLED.inc(len(data))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise Unavailable(
            "SPOOL_UNAVAILABLE",
            "There is no room for uploads now. Nothing was kept; try again later.",
            retry_after_s=5.0,
        ) from exc
