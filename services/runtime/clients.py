"""Calls from one service of the mesh to another: mTLS, identity and trace passed on, deadline, breaker, our errors."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc

from services.runtime import status
from services.runtime.breaker import Breaker
from services.runtime.call import of_task
from services.runtime.config import RuntimeSettings
from services.runtime.errors import DeadlineExceeded, PagemeshError, Unavailable
from services.runtime.server import MAX_MESSAGE_BYTES, STREAM_WINDOW_BYTES
from services.runtime.tls import TlsFolder
from services.telemetry import spans

Response = TypeVar("Response")

# gRPC retries only what has answered nothing yet, and gives up at the call's deadline.
_RETRY = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_THROTTLING = {"maxTokens": 10, "tokenRatio": 0.2}
_RETRIES = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": _RETRY}], "retryThrottling": _THROTTLING})


class MeshClient:
    """The way to one peer. Its methods are idempotent by contract, so what could not be delivered is sent again."""

    def __init__(self, *, peer: str, target: str, settings: RuntimeSettings, breaker: Breaker | None = None) -> None:
        self._peer = peer
        self._target = target
        self._server_name = f"{peer}.{settings.trust_domain}"
        self._tls = TlsFolder(settings.tls_dir)
        self._breaker = breaker or Breaker(peer)
        self._open = self._connect()
        self._closing: set[asyncio.Task[None]] = set()
        self.channel = cast(grpc.aio.Channel, _FollowingChannel(self._current))
        """For the generated stub. Calls go over the newest certificate."""

    async def unary(
        self,
        method: Callable[..., Any],
        request: object,
        *,
        cap_s: float,
        margin_s: float = 0.0,
        guarded: bool = True,
    ) -> Any:
        """One call. Raises our errors; the deadline is `min(cap_s, what remains of the caller's - margin_s)`.

        `guarded` is False for probes, which must neither trip the breaker nor vouch for the peer's real calls.
        """
        time = _Time.of(cap_s, margin_s)
        async with self._breaker.guard() if guarded else contextlib.nullcontext():
            try:
                with spans.of_client(method) as span:
                    return await method(request, timeout=time.limit_s, metadata=_metadata(span))
            except grpc.aio.AioRpcError as exc:
                raise self._translated(exc, time) from exc

    async def stream(
        self, method: Callable[..., Any], request: object, *, cap_s: float, margin_s: float = 0.0
    ) -> AsyncGenerator[Any, None]:
        """One call with a stream of answers; closing the iterator cancels the call."""
        time = _Time.of(cap_s, margin_s)
        async with self._breaker.guard():
            span = spans.of_client(method)
            call = method(request, timeout=time.limit_s, metadata=_metadata(span))
            try:
                with span:
                    async for response in call:
                        yield response
            except grpc.aio.AioRpcError as exc:
                raise self._translated(exc, time) from exc
            finally:
                call.cancel()

    def _translated(self, error: grpc.aio.AioRpcError, time: "_Time") -> PagemeshError:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            if not time.whole:
                return _out_of_time()
            # The caller has time left: for it the peer is away, not late.
            return Unavailable(
                f"{self._peer.upper()}_TIMEOUT", f"The {self._peer} service does not answer in time. Try again."
            )
        return status.from_rpc_error(error, service=self._peer)

    async def close(self) -> None:
        """Closes the connections."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._open.close()

    def _current(self) -> grpc.aio.Channel:
        if self._tls.refresh():
            old, self._open = self._open, self._connect()
            task = asyncio.create_task(old.close(grace=300.0))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return self._open

    def _connect(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            self._target,
            self._tls.channel_credentials(),
            options=[
                # The certificate is the identity, wherever the peer runs.
                ("grpc.ssl_target_name_override", self._server_name),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.service_config", _RETRIES),
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", STREAM_WINDOW_BYTES),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.max_reconnect_backoff_ms", 2_000),
            ],
        )


class _FollowingChannel:
    """Looks like a channel to a stub, and takes each call to the channel that is current when it is made."""

    def __init__(self, current: Callable[[], grpc.aio.Channel]) -> None:
        self._current = current

    def __getattr__(self, shape: str) -> Callable[..., Any]:
        def bind(*args: Any, **kwargs: Any) -> Callable[..., Any]:
            made: tuple[grpc.aio.Channel, Any] | None = None

            def call(*call_args: Any, **call_kwargs: Any) -> Any:
                nonlocal made
                channel = self._current()
                if made is None or made[0] is not channel:
                    made = (channel, getattr(channel, shape)(*args, **kwargs))
                return made[1](*call_args, **call_kwargs)

            call.path = args[0]  # type: ignore[attr-defined]  # for spans.of_client
            return call

        return bind


@dataclass(frozen=True, slots=True)
class _Time:
    """How long one call may take; `whole` where that is its own cap, and not what its caller had left."""

    limit_s: float
    whole: bool

    @classmethod
    def of(cls, cap_s: float, margin_s: float) -> "_Time":
        call = of_task()
        remaining = None if call is None else call.remaining_s()
        if remaining is None or remaining - margin_s >= cap_s:
            return cls(cap_s, whole=True)
        if remaining <= margin_s:
            raise _out_of_time()
        return cls(remaining - margin_s, whole=False)


def _out_of_time() -> DeadlineExceeded:
    """The caller's own hurry, which says nothing of the peer: see breaker.counts_by_default."""
    return DeadlineExceeded(
        "DEADLINE_EXCEEDED", "Too little of the deadline is left. Allow more time.", metadata={"deadline": "caller"}
    )


def _metadata(span: spans.Span) -> tuple[tuple[str, str], ...]:
    call = of_task()
    if call is None:
        return ()
    metadata = (("x-request-id", call.request_id), ("traceparent", (span.trace or call.trace).header()))
    identity = call.identity
    if identity is None:
        return metadata
    return (
        *metadata,
        ("x-pagemesh-tenant", identity.tenant),
        ("x-pagemesh-actor", identity.actor),
        ("x-pagemesh-project", identity.project),
        ("x-pagemesh-scopes", " ".join(sorted(identity.scopes))),
    )
