"""An issuer's keys over HTTPS, as OpenID Connect Discovery 1.0 finds them.

Whoever may add an issuer chooses where the ledger connects to: only https, only addresses that are nobody's private
network, no redirects, no proxies, little time and little room.
"""

import asyncio
import json
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from services.runtime.errors import Unavailable
from services.webhooks.addresses import is_public

TOTAL_TIMEOUT_S = 5.0
_STEP_TIMEOUT_S = 3.0
_MOST_BYTES = 256 * 1024
_MOST_AT_ONCE = 8
_TIMEOUT = dict.fromkeys(("connect", "read", "write", "pool"), _STEP_TIMEOUT_S)
_HEADERS = [("accept", "application/json"), ("accept-encoding", "identity"), ("user-agent", "pagemesh-ledger")]


class OidcDiscovery:
    """KeySource. `ca_file` is trusted besides the system's authorities."""

    def __init__(self, *, private_addresses: bool, ca_file: Path | None = None) -> None:
        self._context = ssl.create_default_context()
        if ca_file is not None:
            self._context.load_verify_locations(cafile=ca_file)
        self._backend = _CheckedAddresses(private_addresses=private_addresses)
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)

    async def fetch(self, issuer: str) -> Sequence[Mapping[str, Any]]:
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S), self._slots, self._pool() as pool:
                described = await _get(pool, issuer.rstrip("/") + "/.well-known/openid-configuration")
                if described.get("issuer") != issuer:
                    raise _refused("its discovery document names another issuer")
                found = await _get(pool, _text(described.get("jwks_uri")))
        except TimeoutError as exc:
            raise _refused("it does not answer in time") from exc
        except ssl.SSLError as exc:
            raise _refused("its certificate is not trusted") from exc
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as exc:
            raise _refused("it cannot be reached") from exc
        keys = found.get("keys")
        if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
            raise _refused("its key set is none")
        return keys

    def _pool(self) -> httpcore2.AsyncConnectionPool:
        """For one fetch: they are rare, and an address that was checked is used once."""
        return httpcore2.AsyncConnectionPool(
            ssl_context=self._context, network_backend=self._backend, max_connections=1
        )


class _CheckedAddresses(httpcore2.AsyncNetworkBackend):
    """Looks a name up once, and connects to what was looked at: another answer a moment later changes nothing."""

    def __init__(self, *, private_addresses: bool) -> None:
        self._private_addresses = private_addresses
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, proto=6)
        except UnicodeError as exc:
            raise _refused("its host is no name") from exc
        addresses = [str(entry[4][0]) for entry in found]
        allowed = [address for address in addresses if self._private_addresses or is_public(address)]
        if not allowed or len(allowed) < len(addresses):
            raise _refused("its address is in a private network")
        return await self._inner.connect_tcp(allowed[0], port, timeout, local_address, socket_options)


async def _get(pool: httpcore2.AsyncConnectionPool, url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or not url.isascii():
        raise _refused("it names an address that is not https")
    async with pool.stream("GET", url, headers=_HEADERS, extensions={"timeout": _TIMEOUT}) as response:
        if response.status != 200:
            raise _refused(f"{parts.path} answers {response.status}")
        body = b""
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > _MOST_BYTES:
                raise _refused(f"{parts.path} answers more than {_MOST_BYTES} bytes")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise _refused(f"{parts.path} answers no JSON") from exc
    if not isinstance(told, dict):
        raise _refused(f"{parts.path} answers no JSON object")
    return told


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _refused("its discovery document has no jwks_uri")
    return value


def _refused(what: str) -> Unavailable:
    return Unavailable("ISSUER_UNREACHABLE", f"{what}.", retry_after_s=5.0)
