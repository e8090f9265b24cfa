"""The object store on a real S3 server: what is stored and how, and what its absence costs."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from pagemesh_cli.stack.ports import pick_free_port
from services.extractor.adapters import object_store
from services.extractor.adapters.download_room import RoomLimits
from services.extractor.adapters.object_store import ObstoreObjectStore
from services.runtime.errors import NotFound, ResourceExhausted, Unavailable
from tests import s3_server as s3
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Start, eventually
from tests.integration.summarizer.tcp_proxy import TcpProxy
from tests.s3_server import S3Server

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "acme/" + "ab" * 32
LIFECYCLE = Path(__file__).parents[3] / "deploy" / "s3" / "lifecycle.json"
BOOK = made_pdfs.book(3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"the bytes")
    return path


async def test_a_large_object_goes_in_parts_and_comes_back_whole(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path, source: Path
) -> None:
    data = os.urandom(23 * 1024 * 1024 + 7)
    source.write_bytes(data)
    store = ObstoreObjectStore(f"s3://{s3_bucket}", spool_dir=tmp_path)
    await store.put(KEY, source)
    # S3 says of how many parts an object is made behind the digest of its parts.
    assert s3_server.client.head_object(Bucket=s3_bucket, Key=KEY)["ETag"].rstrip('"').endswith("-5")
    async with store.open(KEY) as file:
        read = os.pread(file.fileno(), len(data) + 1, 0)
    assert hashlib.sha256(read).digest() == hashlib.sha256(data).digest()
    assert [path.name for path in tmp_path.iterdir()] == ["source"], "what is read has no name"


async def test_a_put_that_breaks_off_is_not_seen(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path, source: Path
) -> None:
    source.write_bytes(os.urandom(40 * 1024 * 1024))
    store = ObstoreObjectStore(f"s3://{s3_bucket}", spool_dir=tmp_path)
    putting = asyncio.create_task(store.put(KEY, source))
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(_unfinished, s3_server, s3_bucket):
            await asyncio.sleep(0)
    putting.cancel()
    await asyncio.wait([putting])
    assert await store.size_bytes(KEY) is None
    source.write_bytes(b"again")
    await store.put(KEY, source)
    assert await store.size_bytes(KEY) == 5


def _unfinished(server: S3Server, bucket: str) -> bool:
    return bool(server.client.list_multipart_uploads(Bucket=bucket).get("Uploads"))


@pytest.mark.parametrize(
    ("encryption", "algorithms", "key_id"),
    [
        ("off", {None, "AES256"}, ""),  # the bucket's own default
        ("AES256", {"AES256"}, ""),
        ("aws:kms", {"aws:kms"}, ""),
        ("aws:kms:a-key", {"aws:kms"}, "a-key"),
    ],
)
@pytest.mark.parametrize("size_bytes", [9, 6 * 1024 * 1024])
async def test_the_server_encrypts_what_it_is_asked_to(
    s3_server: S3Server,
    s3_bucket: str,
    tmp_path: Path,
    source: Path,
    *,
    encryption: str,
    algorithms: set[str | None],
    key_id: str,
    size_bytes: int,
) -> None:
    source.write_bytes(b"x" * size_bytes)
    store = ObstoreObjectStore(f"s3://{s3_bucket}", spool_dir=tmp_path, encryption=encryption)
    await store.put(KEY, source)
    head = s3_server.client.head_object(Bucket=s3_bucket, Key=KEY)
    assert head.get("ServerSideEncryption") in algorithms
    assert head.get("SSEKMSKeyId", "").endswith(key_id)
    assert await store.size_bytes(KEY) == size_bytes


async def test_uploads_get_the_storage_class_that_is_set(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path, source: Path
) -> None:
    await ObstoreObjectStore(f"s3://{s3_bucket}", spool_dir=tmp_path, storage_class="STANDARD_IA").put(KEY, source)
    assert s3_server.client.head_object(Bucket=s3_bucket, Key=KEY)["StorageClass"] == "STANDARD_IA"


@pytest.mark.parametrize("options", [{"encryption": "AES256"}, {"storage_class": "STANDARD_IA"}])
async def test_a_directory_cannot_do_what_s3_does(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="s3://"):
        ObstoreObjectStore(tmp_path.as_uri(), spool_dir=tmp_path, **options)


async def test_a_server_takes_our_lifecycle_rules(s3_server: S3Server, s3_bucket: str) -> None:
    rules = json.loads(LIFECYCLE.read_text())
    s3_server.client.put_bucket_lifecycle_configuration(Bucket=s3_bucket, LifecycleConfiguration=rules)
    kept = s3_server.client.get_bucket_lifecycle_configuration(Bucket=s3_bucket)["Rules"]
    assert [rule["ID"] for rule in kept] == [rule["ID"] for rule in rules["Rules"]]
    assert [(step["Days"], step["StorageClass"]) for step in kept[0]["Transitions"]] == [
        (30, "STANDARD_IA"),
        (90, "GLACIER_IR"),
    ]
    assert kept[1]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1


async def every_call_is_refused(store: ObstoreObjectStore, source: Path) -> None:
    async def read() -> None:
        async with store.open(KEY):
            pass

    calls: list[Callable[[], object]] = [lambda: store.put(KEY, source), lambda: store.delete(KEY), read, store.check]
    for call in calls:
        with pytest.raises(Unavailable) as told:
            await call()  # type: ignore[misc]
        assert told.value.reason == "STORE_UNAVAILABLE"
        assert told.value.retry_after_s
        assert "http" not in told.value.message


async def test_a_bucket_that_is_missing_is_no_empty_one(s3_bucket: str, tmp_path: Path, source: Path) -> None:
    """Else every document would be called gone, and a deletion that removed nothing complete."""
    await every_call_is_refused(ObstoreObjectStore(f"s3://no-{s3_bucket}", spool_dir=tmp_path), source)


async def test_a_key_that_the_server_does_not_know_is_told(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3.running(strict=True) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        await every_call_is_refused(ObstoreObjectStore("s3://bucket", spool_dir=tmp_path), source)


@asynccontextmanager
async def saying_nothing() -> AsyncIterator[int]:
    """A server that takes connections and never answers."""
    silent = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    port = pick_free_port()
    server = await asyncio.start_server(hold, "127.0.0.1", port)
    try:
        yield port
    finally:
        silent.set()
        server.close()


async def test_a_server_that_says_nothing_is_given_up(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CALL_TIMEOUT_S", "TRANSFER_TIMEOUT_S"):
        monkeypatch.setattr(object_store, name, 0.3)
    async with saying_nothing() as port:
        for name, value in S3Server(port).environment.items():
            monkeypatch.setenv(name, value)
        async with asyncio.timeout(20):
            await every_call_is_refused(ObstoreObjectStore("s3://bucket", spool_dir=tmp_path), source)


async def test_a_server_that_hangs_is_not_asked_again(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt would take as long as the first, and the caller has given up by then."""
    monkeypatch.setattr(object_store, "SILENCE_S", 0.3)
    async with saying_nothing() as port, TcpProxy("127.0.0.1", port).running() as wire:
        for name, value in S3Server(wire.port).environment.items():
            monkeypatch.setenv(name, value)
        store = ObstoreObjectStore("s3://bucket", spool_dir=tmp_path)
        with pytest.raises(Unavailable):
            await contents(store, KEY)
        assert wire.taken == 1


async def test_a_server_that_is_down_is_told(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_RETRIES", 0)
    for name, value in S3Server(pick_free_port()).environment.items():
        monkeypatch.setenv(name, value)
    await every_call_is_refused(ObstoreObjectStore("s3://bucket", spool_dir=tmp_path), source)


def gauge(name: str) -> float:
    return REGISTRY.get_sample_value(f"pagemesh_extractor_{name}") or 0.0


async def contents(store: ObstoreObjectStore, key: str) -> bytes:
    async with store.open(key) as file:
        return os.pread(file.fileno(), 1 << 30, 0)


async def test_so_many_downloads_run_at_a_time_and_all_come_whole(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {f"acme/{number:064x}": os.urandom(100_000) for number in range(5)}
    for key, data in keys.items():
        s3_server.client.put_object(Bucket=s3_bucket, Key=key, Body=data)
    async with TcpProxy("127.0.0.1", s3_server.port).running() as wire:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://{wire.target}")
        store = ObstoreObjectStore(f"s3://{s3_bucket}", spool_dir=tmp_path, room=RoomLimits(downloads=2))
        wire.freeze(requests=False)
        reading = [asyncio.create_task(contents(store, key)) for key in keys]
        await eventually(lambda: gauge("downloads_waiting") == 3, "all others wait")
        wire.mend()
        assert await asyncio.gather(*reading) == list(keys.values())
    assert (gauge("downloads_waiting"), gauge("downloaded_bytes")) == (0, 0)


async def test_what_lies_in_the_spool_is_bounded_and_others_wait_for_it_to_be_closed(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    data = os.urandom(6_000_000)
    for tenant in ("acme", "other"):
        s3_server.client.put_object(Bucket=s3_bucket, Key=f"{tenant}/{'a' * 64}", Body=data)
    room = RoomLimits(max_bytes=10_000_000)
    store = ObstoreObjectStore(f"s3://{s3_bucket}", spool_dir=tmp_path, room=room)
    async with store.open(f"acme/{'a' * 64}"):
        waiting = asyncio.create_task(contents(store, f"other/{'a' * 64}"))
        await eventually(lambda: gauge("downloads_waiting") == 1, "the other one waits")
        assert not waiting.done()
        assert gauge("downloaded_bytes") == len(data)
    assert await waiting == data
    assert (gauge("downloads_waiting"), gauge("downloaded_bytes")) == (0, 0)
    with pytest.raises(FileNotFoundError):
        await contents(store, f"acme/{'b' * 64}")
    assert await contents(store, f"acme/{'a' * 64}") == data, "what could not be opened takes no room"


async def test_a_service_without_room_says_when_to_come_back_and_shares_what_is_open(
    start: Start, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "DEFAULT_ROOM", RoomLimits(max_bytes=1, wait_s=0))
    service = await start(object_store_url=f"s3://{s3_bucket}")
    client = service.client
    bomb = (await client.upload(made_pdfs.with_laughing_page(0, 0))).document
    book = (await client.upload(BOOK)).document
    hanging = client.open_extraction(bomb.name)
    await hanging.read()
    with pytest.raises(ResourceExhausted) as told:
        await client.extract(book.name)
    assert told.value.reason == "STORE_BUSY"
    assert told.value.retry_after_s
    shared = client.open_extraction(bomb.name, "words")
    assert (await shared.read()).WhichOneof("event") == "start", "its file is open already"
    for call in (hanging, shared):
        call.cancel()
    await eventually(lambda: gauge("downloaded_bytes") == 0, "the file is closed")
    assert (await client.extract(book.name)).numbers == [1, 2, 3]


async def test_the_whole_service_keeps_its_documents_in_s3(start: Start, s3_server: S3Server, s3_bucket: str) -> None:
    service = await start(object_store_url=f"s3://{s3_bucket}/documents", object_store_encryption="AES256")
    client = service.client
    document = (await client.upload(BOOK)).document
    assert s3_server.keys(s3_bucket) == {f"documents/{client.tenant}/{document.sha256}"}
    assert (await client.extract(document.name)).numbers == [1, 2, 3]
    receipt = await client.delete(document.name)
    assert receipt.objects_deleted == 1
    assert s3_server.keys(s3_bucket) == set()
    with pytest.raises(NotFound):
        await client.extract(document.name)
