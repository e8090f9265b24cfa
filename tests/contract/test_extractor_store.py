"""What every object store promises, in memory, in a directory and on a real S3 server."""

import os
from pathlib import Path

import pytest

from services.extractor.adapters.memory import MemoryObjectStore
from services.extractor.adapters.object_store import ObstoreObjectStore
from services.extractor.domain.ports import ObjectStore, ReadableFile
from services.runtime.errors import Unavailable

KEY = "acme/" + "ab" * 32


@pytest.fixture(params=["memory", "directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryObjectStore()
    if request.param == "s3":
        return ObstoreObjectStore(f"s3://{request.getfixturevalue('s3_bucket')}/some/prefix", spool_dir=tmp_path)
    return ObstoreObjectStore((tmp_path / "objects").as_uri(), spool_dir=tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"the bytes")
    return path


def contents(file: ReadableFile) -> bytes:
    return os.pread(file.fileno(), 1 << 30, 0)


async def test_bytes_come_back_as_they_went(store: ObjectStore, source: Path) -> None:
    await store.put(KEY, source)
    assert await store.size_bytes(KEY) == 9
    async with store.open(KEY) as file:
        assert contents(file) == b"the bytes"


async def test_putting_again_replaces(store: ObjectStore, source: Path) -> None:
    await store.put(KEY, source)
    source.write_bytes(b"other")
    await store.put(KEY, source)
    async with store.open(KEY) as file:
        assert contents(file) == b"other"


async def test_a_put_leaves_nothing_beside_its_object(tmp_path: Path, source: Path) -> None:
    store = ObstoreObjectStore((tmp_path / "objects").as_uri(), spool_dir=tmp_path)
    await store.put(KEY, source)
    await store.put(KEY, source)
    assert [path.relative_to(tmp_path / "objects") for path in tmp_path.glob("objects/*/*")] == [Path(KEY)]


async def test_large_objects_are_whole(store: ObjectStore, source: Path) -> None:
    data = os.urandom(12 * 1024 * 1024)
    source.write_bytes(data)
    await store.put(KEY, source)
    assert await store.size_bytes(KEY) == len(data)
    async with store.open(KEY) as file:
        assert contents(file) == data


async def test_what_is_not_there_is_not_there(store: ObjectStore) -> None:
    assert await store.size_bytes(KEY) is None
    assert await store.delete(KEY) is False
    with pytest.raises(FileNotFoundError):
        async with store.open(KEY):
            pass


async def test_an_open_object_can_be_deleted(store: ObjectStore, source: Path) -> None:
    await store.put(KEY, source)
    async with store.open(KEY) as file:
        assert await store.delete(KEY) is True
        assert contents(file) == b"the bytes"
    assert await store.size_bytes(KEY) is None
    assert await store.delete(KEY) is False


async def test_a_store_that_works_says_so(store: ObjectStore) -> None:
    await store.check()


async def test_a_source_that_is_gone_is_an_error(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises((FileNotFoundError, Unavailable)):
        await store.put(KEY, tmp_path / "gone")
    assert await store.size_bytes(KEY) is None


async def test_a_directory_that_is_gone_is_unavailable(tmp_path: Path, source: Path) -> None:
    store = ObstoreObjectStore((tmp_path / "objects").as_uri(), spool_dir=tmp_path)
    (tmp_path / "objects").rmdir()
    (tmp_path / "objects").write_text("in the way")
    for call in (store.put(KEY, source), store.check()):
        with pytest.raises(Unavailable) as told:
            await call
        assert told.value.reason == "STORE_UNAVAILABLE"
        assert str(tmp_path) not in str(told.value)


async def test_what_a_crash_left_of_a_put_is_swept_once_it_is_old(tmp_path: Path, source: Path) -> None:
    store = ObstoreObjectStore((tmp_path / "objects").as_uri(), spool_dir=tmp_path)
    await store.put(KEY, source)
    old, young = tmp_path / "objects" / f"{KEY}.1.part", tmp_path / "objects" / f"{KEY}.2.part#1"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    young.write_bytes(b"half")
    await store.sweep()
    assert not old.exists()
    assert young.exists()
    assert await store.size_bytes(KEY) == 9


@pytest.mark.parametrize("url", ["", "file://relative/path", "http://x/y", "s3://", "/plain/path"])
def test_a_store_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="object store"):
        ObstoreObjectStore(url, spool_dir=tmp_path)
