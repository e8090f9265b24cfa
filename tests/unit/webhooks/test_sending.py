"""Where messages go and where they never go, and how they are signed."""

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from services.webhooks.addresses import fault_of_url, is_public
from services.webhooks.sender import Sender
from services.webhooks.signature import secret_text, signature

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def test_the_signature_is_that_of_the_standard() -> None:
    """The worked example of the specification's reference libraries."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    told = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert secret_text(secret) == "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "2002:7f00:1::",
        "2002:5db8:d70e::1",  # whatever is inside
        "fec0::1",
        "::ffff:93.184.215.14",
        "::93.184.215.14",
        "::ffff:0:93.184.215.14",
        "64:ff9b::c0a8:101",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::5db8:d70e",
        "2001::1",
        "2001:0:5db8:d70e:0:0:f5ff:fffe",
        "2001:db8::1",
        "3fff::1",
        "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
        "3ffe::1",
        "5f00::1",
        "100::1",
        "4000::1",
        "192.88.99.1",
        "192.0.2.1",
        "198.18.0.1",
        "2606:2800:21f:cb07:0:5efe:10.0.0.1",
        "2606:2800:21f:cb07:200:5efe:10.0.0.1",
        "2606:2800:21f:cb07:0:5efe:93.184.215.14",
        "2606:2800:21f:cb07::1%eth0",
        "nonsense",
        "",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "93.184.215.14",
        "192.88.98.1",
        "2606:2800:21f:cb07::1",
        "2001:200::1",
        "2003::1",
        "3fff:1000::1",
        "64:ff9b::5db8:d70e",
    ],
)
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://example.com/#part",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "https://example.com/\r\nX-Injected: 1",
        "https://exämple.com/",
        "https://localhost/",
        "https://a.localhost/",
        "https://db.internal/",
        "https://localhost./",
        "https://db.local./",
        "https://127.1/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://10.0.0.1./",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:93.184.215.14]/",
        "https://[3fff::1]/",
        "https://[2606:2800:21f:cb07:0:5efe:a00:1]/",
        "https://[fe80::1%25eth0]/",
        "https://[bad/",
        "file:///etc/passwd",
        "gopher://example.com/",
    ],
)
def test_addresses_that_nobody_may_be_told_at(url: str) -> None:
    assert fault_of_url(url, allow_private=False)


@pytest.mark.parametrize(
    "url",
    ["https://example.com", "https://example.com:8443/a?b=c", "https://93.184.215.14/", "https://7.example.com./"],
)
def test_addresses_that_anybody_may(url: str) -> None:
    assert fault_of_url(url, allow_private=False) == ""


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


def saying(answer: bytes, got: list[bytes] | None = None) -> Answer:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(4)
        except asyncio.IncompleteReadError:
            return
        if got is not None:
            got.append(head + body)
        writer.write(answer)
        writer.close()

    return handle


@pytest.mark.parametrize(
    ("answer", "failure", "final"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", "", False),
        (b"HTTP/1.0 204\r\n\r\n", "", False),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "the server answered 302", False),
        (b"HTTP/1.1 500 x\r\n\r\n", "the server answered 500", False),
        (b"HTTP/1.1 410 Gone\r\n\r\n", "the server answered 410", True),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP", False),
        (b"HTTP/1.1 2OO no\r\n", "the answer is not HTTP", False),
        (b"\r\n", "the answer is not HTTP", False),
        (b"", "the connection failed: IncompleteReadError", False),
        (b"x" * 100_000, "the connection failed: LimitOverrunError", False),
    ],
    ids=lambda value: repr(value)[:24],
)
async def test_what_an_answer_means(answer: bytes, failure: str, final: bool) -> None:
    got: list[bytes] = []
    async with serving(saying(answer, got)) as port:
        sent = await Sender(allow_private=True).post(f"http://127.0.0.1:{port}/a?b=c", {"webhook-id": "1"}, b"body")
    assert (sent.failure, sent.final) == (failure, final)
    head = (
        b"POST /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 4\r\nConnection: close\r\nwebhook-id: 1\r\n\r\n"
    )
    assert got == [head % port + b"body"]


async def test_who_does_not_answer_costs_no_more_than_the_time_out() -> None:
    stop = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.close()

    async with serving(silent) as port:
        sent = await Sender(allow_private=True, timeout_s=0.05).post(f"http://127.0.0.1:{port}/", {}, b"body")
        stop.set()
    assert sent.failure == "no answer in time"


async def test_a_private_address_is_never_connected_to() -> None:
    connected: list[bytes] = []
    async with serving(saying(b"HTTP/1.1 200 OK\r\n\r\n", connected)) as port:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            sent = await Sender().post(f"https://{host}:{port}/", {}, b"body")
            assert sent.failure == "the address must be at a public address"
    assert connected == []


@pytest.mark.parametrize("found", [["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], []], ids=["inside", "both", "none"])
async def test_a_name_that_stands_for_a_private_address_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    """What the resolver says is what others control: it stands in for a name server of theirs."""

    async def resolve(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    sent = await Sender().post("https://rebinding.example/", {}, b"body")
    assert sent.failure == "the name stands for no public address"


async def test_certificates_are_checked_against_the_name() -> None:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_side)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serving(saying(b"HTTP/1.1 200 OK\r\n\r\n"), server_side) as port:
        trusted = Sender(allow_private=True, tls=trusting)
        assert (await trusted.post(f"https://localhost:{port}/", {}, b"body")).failure == ""
        assert (await trusted.post(f"https://127.0.0.1:{port}/", {}, b"body")).failure.startswith("TLS failed")
        assert (await Sender(allow_private=True).post(f"https://localhost:{port}/", {}, b"body")).failure.startswith(
            "TLS failed"
        )


async def test_nobody_there_is_told() -> None:
    async with serving(saying(b"")) as port:
        pass
    sent = await Sender(allow_private=True).post(f"http://127.0.0.1:{port}/", {}, b"body")
    assert sent.failure.startswith("the connection failed")
