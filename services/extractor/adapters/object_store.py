"""Documents' bytes through obstore: a local directory or S3, chosen by a URL."""

import asyncio
import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import from_url

from services.extractor.adapters.download_room import DEFAULT_ROOM, DownloadRoom, Place, RoomLimits
from services.extractor.domain.ports import ReadableFile
from services.runtime.errors import Unavailable

CALL_TIMEOUT_S = 10.0
TRANSFER_TIMEOUT_S = 60.0
SILENCE_S = 7.0
"""How long S3 may say nothing to a request of a transfer. What was waited for so long is not asked for again: a server
that fails is asked up to _RETRIES times more, and one that hangs is told of before the caller gives up."""
_SLOWEST_BYTES_PER_S = 4 * 1024 * 1024
"""A transfer has time for as many more."""
_CONNECT_TIMEOUT_S = 3
_RETRIES = 3
_READ_BYTES = 1024 * 1024
_PARTS_AT_ONCE = 2
"""Parts (of 5 MiB for S3) that are held of each object on its way to the store; obstore itself would hold twelve."""
_STAGING = ".part"
_STAGING_AGE_S = 3600.0
"""A put that a crash cut off leaves a staging file; none takes as long as this."""

log = structlog.get_logger()


class ObstoreObjectStore:
    """Implements the port `ObjectStore` for `file:///absolute/path` and `s3://bucket/prefix`.

    obstore renames into place but does not flush. Locally an object is therefore put beside its place, flushed, and
    renamed: what is seen survives a power cut, and what `put` has acknowledged is seen after it.
    """

    def __init__(
        self,
        url: str,
        *,
        spool_dir: Path,
        encryption: str = "off",
        storage_class: str = "",
        room: RoomLimits | None = None,
    ) -> None:
        """Objects that are not local files are read through files in `spool_dir`, for which there is `room`. S3 alone
        encrypts (`AES256`, `aws:kms`, `aws:kms:KEY`) and has storage classes. Raises ValueError for what cannot be."""
        self._spool_dir = spool_dir
        self._room = DownloadRoom(room or DEFAULT_ROOM)
        self._root = _local_root(url)
        self._attributes: Any = {"Storage-Class": storage_class} if storage_class else None
        if self._root is not None:
            if encryption != "off" or storage_class:
                raise ValueError("encryption and storage classes need s3://; encrypt a directory's disk")
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._store: Any = from_url(self._root.as_uri())
            return
        self._store = from_url(
            url,
            client_options={
                # Of each read, and of a request as a whole; a call is bounded below, with its attempts.
                "read_timeout": timedelta(seconds=SILENCE_S),
                "timeout": timedelta(seconds=TRANSFER_TIMEOUT_S),
                "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_S),
                # The only AWS_… variable that options of our own would hide.
                "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true",
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=SILENCE_S * 0.9)},
            **_encryption(encryption),
        )

    async def put(self, key: str, source: Path) -> None:
        """See the port."""
        with _translated("put"), _absent_is_unavailable():
            size_bytes = source.stat().st_size  # noqa: ASYNC240  # costs less than changing to a thread
            async with asyncio.timeout(_transfer_s(size_bytes)):
                if self._root is None:
                    await obstore.put_async(
                        self._store, key, source, attributes=self._attributes, max_concurrency=_PARTS_AT_ONCE
                    )
                else:
                    await self._put_durably(self._root, key, source)

    async def size_bytes(self, key: str) -> int | None:
        """See the port."""
        with _translated("head"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                try:
                    return int((await obstore.head_async(self._store, key))["size"])
                except FileNotFoundError:
                    return None

    @contextlib.asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[ReadableFile]:
        """See the port."""
        if self._root is not None:
            with _translated("get"):
                # Not in a thread: it costs less than changing to one, and no byte is read.
                file: Any = open(f"{self._root}/{key}", "rb", 0)  # noqa: ASYNC230, SIM115, PTH123
            with file:
                yield file
            return
        async with self._room.place(key.partition("/")[0]) as place:
            with _translated("get"):
                file = await self._download(key, place)
            with file:
                yield file

    async def delete(self, key: str) -> bool:
        """See the port."""
        if await self.size_bytes(key) is None:
            # A bucket that is not there has no objects either; nothing must be called erased because of that.
            await self.check()
            return False
        with _translated("delete"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                with contextlib.suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, key)
                    if self._root is not None:
                        await asyncio.to_thread(_flush, (self._root / key).parent)
        return True

    async def check(self) -> None:
        """See the port."""
        if self._root is not None:
            await asyncio.to_thread(_require_writable, self._root)
            return
        with _translated("list"), _absent_is_unavailable():
            async with asyncio.timeout(CALL_TIMEOUT_S):
                # A question for one object says of a bucket that is missing what it says of the object.
                async for _ in obstore.list(self._store, "health", chunk_size=1):
                    break

    async def sweep(self) -> None:
        """Removes what puts left behind that a crash cut off. S3 does that itself, by a lifecycle rule."""
        if self._root is not None:
            await asyncio.to_thread(_remove_staging, self._root, time.time() - _STAGING_AGE_S)

    async def _put_durably(self, root: Path, key: str, source: Path) -> None:
        staging = f"{key}.{uuid.uuid4().hex}{_STAGING}"
        try:
            await obstore.put_async(
                self._store, staging, source, chunk_size=_READ_BYTES, max_concurrency=_PARTS_AT_ONCE
            )
            await asyncio.to_thread(_flush, root / staging)
            await obstore.rename_async(self._store, staging, key)
            await asyncio.to_thread(_flush, (root / key).parent, root)
        except BaseException:
            (root / staging).unlink(missing_ok=True)
            raise

    async def _download(self, key: str, place: Place) -> Any:
        while True:
            async with place.turn(), asyncio.timeout(TRANSFER_TIMEOUT_S) as timer:
                result = await obstore.get_async(self._store, key)
                size_bytes: int = result.meta["size"]
                if place.take(size_bytes):
                    timer.reschedule(asyncio.get_running_loop().time() + _transfer_s(size_bytes))
                    return await self._spooled(result)
            # S3 does not keep an answer open that nobody reads: it is asked for again.
            del result
            await place.wait(size_bytes)

    async def _spooled(self, result: Any) -> Any:
        with _room_in_spool():
            # Without a name from the start: it is gone with its last descriptor, whatever happens.
            file = tempfile.TemporaryFile(dir=self._spool_dir, buffering=0)  # noqa: SIM115  # the caller closes it
        try:
            async for piece in result.stream(min_chunk_size=_READ_BYTES):
                writing = asyncio.ensure_future(asyncio.to_thread(_write_all, file, piece))
                try:
                    with _room_in_spool():
                        await asyncio.shield(writing)
                finally:
                    await asyncio.wait([writing])  # the file is not closed under it
        except BaseException:
            file.close()
            raise
        return file


def _write_all(file: Any, piece: Any) -> None:
    """A raw file may take less than it is given, as where the disk is almost full."""
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]


def _local_root(url: str) -> Path | None:
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        return None
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise ValueError("the object store is file:///absolute/path or s3://bucket")
    return Path(unquote(parts.path))


def _encryption(encryption: str) -> Any:
    """What obstore calls it."""
    if encryption == "off":
        return {}
    key_id = encryption.removeprefix("aws:kms").removeprefix(":") if encryption.startswith("aws:kms") else ""
    algorithm = {"server_side_encryption": "aws:kms" if encryption.startswith("aws:kms") else encryption}
    return {**algorithm, "sse_kms_key_id": key_id} if key_id else algorithm


def _transfer_s(size_bytes: int) -> float:
    """How long so many bytes may be on their way."""
    return TRANSFER_TIMEOUT_S + size_bytes / _SLOWEST_BYTES_PER_S


def _flush(*paths: Path) -> None:
    """Makes files, and the names in directories, survive a power cut."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _require_writable(root: Path) -> None:
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        raise Unavailable("STORE_UNAVAILABLE", "The object store is not writable.")


def _remove_staging(root: Path, before: float) -> None:
    # obstore itself stages as `name#1`; no key of ours has either mark.
    for path in root.glob(f"*/*{_STAGING}*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()


@contextlib.contextmanager
def _absent_is_unavailable() -> Iterator[None]:
    """Where it is not an object that may be missing, the bucket is."""
    try:
        yield
    except FileNotFoundError as exc:
        raise OSError("there is no such bucket") from exc


@contextlib.contextmanager
def _translated(operation: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        if "NoSuchBucket" not in str(exc):
            raise
        raise _unavailable(operation) from exc
    except (BaseError, OSError, TimeoutError) as exc:
        log.warning("store_failed", operation=operation, fault=type(exc).__name__)
        raise _unavailable(operation) from exc


@contextlib.contextmanager
def _room_in_spool() -> Iterator[None]:
    """What fails here is our own disk, and not the object store."""
    try:
        yield
    except OSError as exc:
        log.warning("spool_failed", fault=type(exc).__name__)
        raise Unavailable(
            "SPOOL_UNAVAILABLE",
            "There is no room to read the document now. Try again later.",
            retry_after_s=5.0,
        ) from exc


def _unavailable(operation: str) -> Unavailable:
    return Unavailable(
        "STORE_UNAVAILABLE",
        "The object store does not answer or is full. Nothing was kept; try again.",
        retry_after_s=2.0,
        metadata={"operation": operation},
    )
