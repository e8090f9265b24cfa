"""A real Envoy with the shipped configuration, and plain clients for it."""

import asyncio
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pagemesh_cli.stack.edge import LOCAL_HOSTS, SERVICES, EdgeAddresses, EdgeLimits, command, render
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.process import Process, ProcessSpec
from tests.edge.envoy.upstreams import Mesh

KEY = {"authorization": "Bearer pm_acme_k1"}
_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """ErrorInfo.reason of an error."""
        return str(self.json["details"][0]["reason"])


def _answer(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the admin socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))


class Edge:
    """One Envoy process in front of a mesh."""

    def __init__(
        self,
        directory: Path,
        mesh: Mesh,
        *,
        tls_dir: Path,
        ca_file: Path,
        limits: EdgeLimits | None = None,
        extractor: str | None = None,
        allowed_origins: tuple[str, ...] = (),
        hosts: tuple[str, ...] = LOCAL_HOSTS,
    ) -> None:
        self.directory = directory
        self.ca_file = ca_file
        self.port, self.metrics_port = pick_free_port(), pick_free_port()
        self.access_log = directory / "access.log"
        addresses = EdgeAddresses(
            listen=f"127.0.0.1:{self.port}",
            metrics_listen=f"127.0.0.1:{self.metrics_port}",
            ledger=mesh.ledger.address,
            extractor=extractor or mesh.extractor.address,
            summarizer=mesh.summarizer.address,
            tls_dir=tls_dir,
            access_log=self.access_log,
            trust_domain="pagemesh.local",
        )
        self.config = render(
            directory,
            addresses=addresses,
            limits=limits or EdgeLimits.lifted(),
            allowed_origins=allowed_origins,
            hosts=hosts,
        )
        self.process: Process | None = None

    async def start(self) -> None:
        """Starts it and waits until it is ready and has every service's first health check."""
        self.process = Process(ProcessSpec("envoy", tuple(command(self.config)), self.directory / "envoy.log"))

        def ready() -> None:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return

        await asyncio.to_thread(self.process.wait_ready, ready, timeout_s=20)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    @property
    def target(self) -> str:
        return f"localhost:{self.port}"

    def tls(self, *, client: Path | None = None) -> ssl.SSLContext:
        """Trusts the mesh's CA; shows the certificate in the folder `client`."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if client is not None:
            context.load_cert_chain(client / "tls.crt", client / "tls.key")
        return context

    def connection(self, *, client: Path | None = None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, context=self.tls(client=client), timeout=_TIMEOUT_S)

    def raw(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A TLS connection, for what http.client would not say."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=_TIMEOUT_S)
        try:
            return (context or self.tls()).wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    def channel(self) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.ca_file.read_bytes())
        return grpc.aio.secure_channel(self.target, credentials, options=[("grpc.use_local_subchannel_pool", 1)])

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Iterable[bytes] | object = None,
        headers: Mapping[str, str] = KEY,
        client: Path | None = None,
    ) -> Answer:
        """One request over HTTP/1.1. Bytes are sent as they are, an iterator of bytes chunked, else as JSON."""
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "__next__"):
            body, headers = json.dumps(body).encode(), {"content-type": "application/json", **headers}

        def exchange() -> Answer:
            connection = self.connection(client=client)
            try:
                connection.request(method, path, body=body, headers=dict(headers))  # type: ignore[arg-type]
                return _answer(connection.getresponse())
            finally:
                connection.close()

        return await asyncio.to_thread(exchange)

    def plain(self, path: str, method: str = "GET") -> Answer:
        """One request to the listener for metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=_TIMEOUT_S)
        try:
            connection.request(method, path)
            return _answer(connection.getresponse())
        finally:
            connection.close()

    def admin(self, path: str, method: str = "GET") -> str:
        connection = UnixConnection(self.directory / "admin.sock")
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def stat(self, name: str) -> int:
        """A counter or gauge; 0 where Envoy has not made it yet."""
        stats = json.loads(self.admin(f"/stats?format=json&filter=^{name}$"))["stats"]
        return int(stats[0]["value"]) if stats else 0

    async def wait_all_healthy(self) -> None:
        """Waits until a replica of every service answers health checks."""
        for cluster in SERVICES:
            name = f"cluster.{cluster}.membership_healthy"
            await wait_for(lambda name=name: self.stat(name) > 0, f"{cluster} healthy")  # type: ignore[misc]

    async def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        await wait_for(condition, what)

    async def wait_healthy(self, cluster: str, hosts: int) -> None:
        await wait_for(
            lambda: self.stat(f"cluster.{cluster}.membership_healthy") == hosts, f"{hosts} of {cluster} healthy"
        )

    def memory_peak_bytes(self) -> int:
        """Largest resident size so far (proc(5), VmHWM)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


async def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = _TIMEOUT_S) -> None:
    """Polls until the condition holds."""
    end = time.monotonic() + timeout_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.02)


def metadata(headers: Mapping[str, str] = KEY) -> tuple[tuple[str, str], ...]:
    """Headers as gRPC metadata."""
    return tuple(headers.items())


def grpc_error(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """Code and ErrorInfo.reason of an error."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert info.domain == "pagemesh"
    return error.code().name, info.reason
