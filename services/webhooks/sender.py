"""One POST to somebody else's server: bounded in time and size, without redirects, to a checked address only.

The name is resolved here and the connection goes to the address that was checked, so that a name that changes its
address in between reaches nothing else. Certificates are checked against the name. Of the answer only its first line is
read: what else a server says is of no interest, and cannot be too long.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from socket import IPPROTO_TCP, SOCK_STREAM
from urllib.parse import SplitResult, urlsplit

from services.webhooks.addresses import fault_of_url, is_public

TIMEOUT_S = 10.0
_LONGEST_LINE = 1024
_GONE = 410


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one attempt. `failure` is empty where the server took the message (2xx)."""

    failure: str = ""
    final: bool = False
    """It is of no use to try again: the server said 410 Gone."""


class Sender:
    """Sends over TLS. `allow_private` also sends in plain HTTP and to private networks: for tests, and machines of
    one's own."""

    def __init__(
        self, *, allow_private: bool = False, timeout_s: float = TIMEOUT_S, tls: ssl.SSLContext | None = None
    ) -> None:
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._tls = tls or ssl.create_default_context()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        """Sends once, within the time-out. Never raises for what the other side does."""
        fault = fault_of_url(url, allow_private=self._allow_private)
        if fault:
            return Sent(f"the address {fault}")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(urlsplit(url), headers, body)
        except TimeoutError:
            return Sent("no answer in time")
        except ssl.SSLError as exc:
            return Sent(f"TLS failed: {exc.reason or 'certificate refused'}")
        except socket.gaierror:
            return Sent("the name was not found")
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as exc:
            return Sent(f"the connection failed: {type(exc).__name__}")

    async def _post(self, url: SplitResult, headers: Mapping[str, str], body: bytes) -> Sent:
        host = url.hostname or ""
        secure = url.scheme == "https"
        port = url.port or (443 if secure else 80)
        address = await self._resolve(host, port)
        if address is None:
            return Sent("the name stands for no public address")
        reader, writer = await asyncio.open_connection(
            address,
            port,
            ssl=self._tls if secure else None,
            server_hostname=host if secure else None,
            limit=_LONGEST_LINE,
        )
        try:
            writer.write(_request(url, headers, body))
            await writer.drain()
            return _outcome(await reader.readuntil(b"\n"))
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError, ssl.SSLError):  # it was broken off on purpose
                await writer.wait_closed()

    async def _resolve(self, host: str, port: int) -> str | None:
        """The address to connect to; None where one of those that the name stands for is not public."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=SOCK_STREAM, proto=IPPROTO_TCP)
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not (self._allow_private or all(is_public(address) for address in addresses)):
            return None
        return addresses[0]


def _request(url: SplitResult, headers: Mapping[str, str], body: bytes) -> bytes:
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = [f"POST {target} HTTP/1.1", f"Host: {url.netloc}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _outcome(line: bytes) -> Sent:
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        return Sent("the answer is not HTTP")
    status = int(parts[1])
    if 200 <= status < 300:
        return Sent()
    return Sent(f"the server answered {status}", final=status == _GONE)
