"""The only place that knows gRPC's four shapes of a call: it wraps each of them in the same concerns."""

import functools
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from services.runtime.access import Access, of_method
from services.runtime.call import Call
from services.runtime.errors import InvalidArgument
from services.runtime.middleware import Concern, Exchange, Policy, in_order

Handler = Callable[[Any, Any], Any]
RpcHandler = Any
"""grpc.RpcMethodHandler, which is generic in its stubs alone."""


class MeshInterceptor(grpc.aio.ServerInterceptor):
    """Runs every call through the concerns, in their order."""

    def __init__(self, policy: Policy, concerns: Sequence[Concern] = in_order()) -> None:
        self._policy = policy
        self._concerns = tuple(concerns)
        self._wrapped: dict[str, RpcHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[RpcHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> RpcHandler | None:
        """The wrapped handler of a method; an unknown one has none and stays gRPC's to refuse."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: RpcHandler) -> RpcHandler:
        shape, wrap = _shape(handler)
        inner: Handler = getattr(handler, shape)
        factory: Callable[..., RpcHandler] = getattr(grpc, f"{shape}_rpc_method_handler")
        return factory(
            wrap(inner, functools.partial(self._enter, method, of_method(method))),
            request_deserializer=functools.partial(_deserialized, handler.request_deserializer),
            response_serializer=functools.partial(_serialized, handler.response_serializer),
        )

    def _enter(self, method: str, rules: Access, context: "grpc.aio.ServicerContext[Any, Any]") -> "_Around":
        metadata = {k: v for k, v in context.invocation_metadata() or () if isinstance(v, str)}
        return _Around(Exchange(rules, context, metadata, Call(method)), self._policy, self._concerns)


class _Around:
    """What surrounds one call, as `with` in `with` would, at half of what an AsyncExitStack costs: entered from the
    outside in, and left the other way round. None of it suppresses an error."""

    def __init__(self, exchange: Exchange, policy: Policy, concerns: Sequence[Concern]) -> None:
        self._exchange, self._policy, self._concerns = exchange, policy, concerns
        self._entered: list[AbstractAsyncContextManager[None]] = []

    async def __aenter__(self) -> Exchange:
        try:
            for concern in self._concerns:
                surrounding = concern(self._exchange, self._policy)
                if surrounding is not None:
                    await surrounding.__aenter__()
                    self._entered.append(surrounding)
        except BaseException as exc:
            await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return self._exchange

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        while self._entered:
            try:
                await self._entered.pop().__aexit__(kind, error, traceback)
            except BaseException:
                # Those further out see this one instead, as it is.
                await self.__aexit__(*sys.exc_info())
                raise


def _shape(handler: RpcHandler) -> tuple[str, Callable[[Handler, Callable[[Any], _Around]], Handler]]:
    incoming = "stream" if handler.request_streaming else "unary"
    outgoing = "stream" if handler.response_streaming else "unary"
    return f"{incoming}_{outgoing}", _to_stream if handler.response_streaming else _to_unary


def _to_unary(inner: Handler, enter: Callable[[Any], _Around]) -> Handler:
    async def handle(request: Any, context: Any) -> Any:
        async with enter(context) as exchange:
            exchange.response = await inner(_checked(exchange, request), context)
            return exchange.response

    return handle


def _to_stream(inner: Handler, enter: Callable[[Any], _Around]) -> Handler:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        async with enter(context) as exchange:
            responses = inner(_checked(exchange, request), context)
            if inspect.isawaitable(responses):  # a handler that writes its answers itself, as gRPC's own health does
                await responses
                return
            # Closed with this generator, so that the work of a cancelled call stops with it.
            async with aclosing(responses):
                async for response in responses:
                    yield response

    return handle


def _deserialized(deserializer: Callable[[bytes], Any], data: bytes) -> Any:
    """The message, or None where the bytes are none: said within the call, where it becomes an error like any other."""
    try:
        return deserializer(data)
    except DecodeError:
        return None


def _serialized(serializer: Callable[[Any], bytes], message: Any) -> bytes:
    """The message's bytes; a servicer may answer with those itself, where it has them already."""
    return message if isinstance(message, bytes) else serializer(message)


def _checked(exchange: Exchange, request: Any) -> Any:
    """The request, or the stream of them, with each message checked before it is handed on."""

    def checked(message: Any) -> Any:
        if message is None:
            raise InvalidArgument("INVALID_REQUEST", "The message is not what the contract says, or not UTF-8.")
        for check in exchange.checks:
            check(message)
        return message

    async def each() -> AsyncIterator[Any]:
        async for message in request:
            yield checked(message)

    return each() if hasattr(request, "__aiter__") else checked(request)
