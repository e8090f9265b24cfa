"""JSON and server-sent events of a provider's HTTP API, whole or event by event."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
from pydantic import SecretStr

from services.summarizer.adapters.bounded_http import TooLong
from services.summarizer.adapters.provider_faults import cut_off, no_connection, refused, timed_out, unreadable

_DONE = b"[DONE]"


class Refused(Exception):
    """A status that is no success. What the body says is not read: it may repeat the document."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.headers = headers


class ProviderHttp:
    """One API with a bearer key. `http` bounds what comes back, see bounded_http.

    Every method raises Refused, what httpx2 raises, and ValueError for a body that is no JSON object.
    """

    def __init__(self, http: httpx2.AsyncClient, *, url: str, api_key: SecretStr) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key.get_secret_value()}"}

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer as a whole."""
        return _object(await self.post_unread(path, body))

    async def post_unread(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The bytes of the answer, for one that takes long to read."""
        async with self._http.stream("POST", self._url + path, json=body, headers=self._headers) as response:
            _succeeded(response)
            return await response.aread()

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The data of each event until the stream says that it is done, or ends. Closing it ends the call."""
        async with self._http.stream("POST", self._url + path, json=body, headers=self._headers) as response:
            _succeeded(response)
            async for data in _data(response.aiter_bytes()):
                if data == _DONE:
                    return
                yield _object(data)


@contextmanager
def translated(provider: str, *, timeout_s: float, now_s: Callable[[], float]) -> Iterator[None]:
    """What ProviderHttp raises, as the port says it. `now_s` is Unix time."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as exc:
        raise no_connection(provider) from exc
    except (TimeoutError, httpx2.TimeoutException) as exc:
        raise timed_out(provider, timeout_s) from exc
    except TooLong as exc:
        raise unreadable(provider, "it is too long", None) from exc
    except ValueError as exc:
        # json.JSONDecodeError and UnicodeDecodeError are among them.
        raise unreadable(provider, "it is not in the form of the API", None) from exc
    except Refused as exc:
        raise refused(provider, exc.status, exc.headers, now_s=now_s) from exc
    except httpx2.RequestError as exc:
        raise cut_off(provider) from exc


def _succeeded(response: httpx2.Response) -> None:
    if not 200 <= response.status_code < 300:
        raise Refused(response.status_code, response.headers)


def _object(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("the body is no JSON object")
    return found


async def _data(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of each event (https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.6); what is not
    data is passed over, and so is an event that does not end.

    Lines end where bytes say so: a JSON text may hold characters that Unicode calls line breaks.
    """
    rest = bytearray()
    lines: list[bytes] = []
    async for piece in pieces:
        # Only what is new is looked through, so that a long line costs its length once.
        looked_at = len(rest)
        rest += piece
        if rest.find(b"\n", looked_at) < 0:
            continue
        *whole, last = rest.split(b"\n")
        rest = last
        for line in whole:
            text = bytes(line.removesuffix(b"\r"))
            if text.startswith(b"data:"):
                lines.append(text[len(b"data:") :].removeprefix(b" "))
            elif not text and lines:
                yield b"\n".join(lines)
                lines = []
