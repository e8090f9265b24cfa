"""Responses that cannot grow without bound, for SDKs that read them whole."""

from collections.abc import AsyncIterator

import httpx2


class TooLong(Exception):
    """The other side sends more than anything we asked for can be."""


def bounded_client(*, max_response_bytes: int, timeout_s: float, max_connections: int) -> httpx2.AsyncClient:
    """A client whose responses raise TooLong when their body passes the bound. It follows no redirects, so that a
    credential goes where it was meant to, and takes no compressed bodies, whose size says nothing."""

    async def bound(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise TooLong("a compressed body was not asked for")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream, max_response_bytes)

    return httpx2.AsyncClient(
        event_hooks={"response": [bound]},
        follow_redirects=False,
        headers={"accept-encoding": "identity"},
        limits=httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
        timeout=timeout_s,
    )


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._left = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._left -= len(piece)
            if self._left < 0:
                raise TooLong("the body is longer than its bound")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
