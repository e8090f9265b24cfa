"""A service of the mesh from start to stop: mTLS, concerns, health, reflection, metrics, and a graceful end."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.admission.calls_at_a_time import CallsAtATime
from services.readiness.health_service import HealthService
from services.runtime import logging
from services.runtime.background import beside
from services.runtime.config import RuntimeSettings
from services.runtime.health import Health
from services.runtime.interceptor import MeshInterceptor
from services.runtime.middleware import Concern, Policy, in_order
from services.runtime.tls import TlsFolder
from services.telemetry import start as telemetry

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest message on any channel: a page of text with its words and boxes fits many times over."""
MAX_METADATA_BYTES = 32 * 1024
MAX_STREAMS = 1000
STREAM_WINDOW_BYTES = 256 * 1024
"""How far a caller may be ahead of who reads its stream."""
_HTTP_TIMEOUT_S = 5.0
_HTTP_HEAD_BYTES = 8 * 1024

log = structlog.get_logger()


class MeshServer:
    """Serves what is added to it until it is told to stop."""

    def __init__(
        self,
        *,
        name: str,
        settings: RuntimeSettings,
        health: Health,
        reflect: Sequence[str] = (),
        audit: Sequence[Concern] = (),
    ) -> None:
        """`reflect` names services that reflection shows besides those that are added here."""
        logging.configure(name, settings.log_level)
        telemetry.start(name, settings)
        self._name = name
        self._settings = settings
        self._health = health
        self._reflect = list(reflect)
        self._services: list[str] = []
        self._tls = TlsFolder(settings.tls_dir)
        concerns = in_order(*audit, admission=CallsAtATime(settings.calls_per_tenant))
        self._server = grpc.aio.server(
            interceptors=[MeshInterceptor(Policy(settings.trust_domain, frozenset(settings.peers)), concerns)],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                # Left to itself a window grows to megabytes for each stream, and many uploads at once to a gigabyte.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", STREAM_WINDOW_BYTES),
                # A second process on the same port is a mistake, not a way to scale.
                ("grpc.so_reuseport", 0),
            ],
        )
        self._grpc_health = HealthService(self._services)
        self.grpc_port = 0
        """The port that is listened on, once `run` has started; differs from the setting where that is 0."""
        self.http_port = 0

    def add(self, add_to_server: Callable[[Any, Any], None], servicer: object, service_name: str) -> None:
        """Adds one servicer with its generated `add_…Servicer_to_server` and its full name."""
        add_to_server(servicer, _ByPath(self._server))
        self._services.append(service_name)

    async def run(self, *, started: asyncio.Event | None = None, stop: asyncio.Event | None = None) -> None:
        """Serves until SIGTERM or SIGINT, or until `stop` is set; `started` is set once calls are answered.

        Raises OSError where an address is taken.
        """
        stop = stop or asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        async with contextlib.AsyncExitStack() as stack:
            listen = self._settings.http_listen
            http = await asyncio.start_server(self._answer_http, listen.host, listen.port)
            stack.push_async_callback(_close_http, http)
            self.http_port = http.sockets[0].getsockname()[1]
            await self._start_grpc()
            stack.push_async_callback(self._server.stop, 0)
            await self._health.probe()
            await stack.enter_async_context(beside(self._health.run()))
            log.info("started", grpc=self.grpc_port, http=self.http_port)
            if started is not None:
                started.set()
            await stop.wait()
            await self._drain()
        log.info("stopped")

    async def _start_grpc(self) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._grpc_health, _ByPath(self._server))
        self._health.on_change(self._tell_grpc_health)
        names = [*self._services, *self._reflect, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
        reflection.enable_server_reflection(sorted({*names, reflection.SERVICE_NAME}), self._server)
        address = str(self._settings.grpc_listen)
        try:
            self.grpc_port = self._server.add_secure_port(address, self._tls.server_credentials())
        except RuntimeError as exc:
            raise OSError(f"cannot listen on {address}: is the port in use?") from exc
        await self._server.start()

    async def _tell_grpc_health(self, ready: bool) -> None:
        state = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *self._services):
            await self._grpc_health.set(service, state)

    async def _drain(self) -> None:
        log.info("stopping", drain_s=self._settings.drain_s)
        await self._health.stop()
        await asyncio.sleep(self._settings.drain_s)
        await self._server.stop(self._settings.shutdown_s)

    async def _answer_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection: enough for probes and scrapers, and nothing to attack."""
        try:
            async with asyncio.timeout(_HTTP_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                code, content_type, body = self._http_response(head[:_HTTP_HEAD_BYTES])
                writer.write(
                    f"HTTP/1.1 {code}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
                    "connection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            log.debug("http_request_broken")
        finally:
            writer.close()

    def _http_response(self, head: bytes) -> tuple[str, str, bytes]:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            return "405 Method Not Allowed", "text/plain", b"GET only\n"
        if path == b"/metrics":
            return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
        if path == b"/livez":
            return "200 OK", "application/json", b'{"live": true}\n'
        if path == b"/readyz":
            report = {"service": self._name, **self._health.report()}
            code = "200 OK" if self._health.ready else "503 Service Unavailable"
            return code, "application/json", json.dumps(report).encode() + b"\n"
        return "404 Not Found", "text/plain", b"/metrics /livez /readyz\n"


class _ByPath:
    """A server to which handlers are added without telling gRPC's core of their methods: for each that it knows, a task
    waits for its next call, and each call of any costs a wait for all of these tasks anew."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, object]) -> None:
        """Nothing: the generic handlers are the same, found by a call's path."""


async def _close_http(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()
