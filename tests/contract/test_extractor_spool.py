"""What every spool promises, in memory and on disk."""

import hashlib
import os
from pathlib import Path

import pytest

from services.extractor.adapters.memory import MemorySpool
from services.extractor.adapters.spool import DiskSpool
from services.extractor.domain.ports import Spool
from services.runtime.errors import ResourceExhausted, Unavailable


@pytest.fixture(params=["memory", "disk"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Spool:
    return MemorySpool() if request.param == "memory" else DiskSpool(tmp_path / "spool", max_files=2)


@pytest.mark.parametrize("pieces", [[], [b""], [b"a", b"b" * 70_000, b"c"], [os.urandom(700_000)] * 5])
async def test_a_file_holds_what_was_written_and_knows_its_digest(spool: Spool, pieces: list[bytes]) -> None:
    async with spool.file("acme") as file:
        for piece in pieces:
            await file.write(piece)
        assert await file.finish() == hashlib.sha256(b"".join(pieces)).hexdigest()
        assert file.path.read_bytes() == b"".join(pieces)
        path = file.path
    assert not path.exists()


async def test_a_file_is_gone_whatever_happened(spool: Spool) -> None:
    path = Path("/nowhere")
    with pytest.raises(ZeroDivisionError):
        async with spool.file("acme") as file:
            await file.write(b"x" * 2_000_000)
            path = file.path
            raise ZeroDivisionError
    assert not path.exists()


async def test_what_an_earlier_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "upload-abc").write_bytes(b"left")
    (tmp_path / "something else").write_bytes(b"kept")
    DiskSpool(tmp_path, max_files=1)
    assert [path.name for path in tmp_path.iterdir()] == ["something else"]


async def test_too_many_at_a_time_are_refused(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path, max_files=1)
    async with spool.file("acme"):
        with pytest.raises(ResourceExhausted) as refused:
            async with spool.file("acme"):
                pass
        assert refused.value.reason == "TOO_MANY_UPLOADS"
    async with spool.file("acme"):
        pass


async def test_one_tenant_gets_a_quarter_of_the_places(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path, max_files=8)
    async with spool.file("acme"), spool.file("acme"):
        with pytest.raises(ResourceExhausted) as refused:
            async with spool.file("acme"):
                pass
        assert refused.value.reason == "TOO_MANY_UPLOADS"
        async with spool.file("other"):
            pass
    async with spool.file("acme"):
        pass


async def test_a_spool_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path / "spool", max_files=1)
    (tmp_path / "spool").rmdir()
    with pytest.raises(Unavailable) as told:
        async with spool.file("acme"):
            pass
    assert told.value.reason == "SPOOL_UNAVAILABLE"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
async def test_a_full_disk_is_unavailable(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path, max_files=1)
    async with spool.file("acme") as file:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file._descriptor)
        os.close(full)
        with pytest.raises(Unavailable):
            await file.write(b"x" * 2_000_000)
    assert list(tmp_path.iterdir()) == []
