"""Calls to a service itself, with the operator's certificate: no edge stands between."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc

from pagemesh.ledger.v1.operator_service_pb2_grpc import OperatorServiceStub
from pagemesh.summarizer.v1.job_service_pb2_grpc import JobServiceStub
from pagemesh_cli.connection import no_stack
from pagemesh_cli.failures import ExitCode, Failure, from_rpc_error
from pagemesh_cli.stack.layout import DataDir, default_root
from pagemesh_cli.stack.state import load_state

TIMEOUT_S = 30.0
_FILES = ("ca.crt", "tls.key", "tls.crt")

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True)
class OperatorConnection:
    """A service, and who the operator is to it."""

    target: str
    """`host:port`."""
    ca: bytes = field(repr=False)
    key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)


def resolve_operator(
    address: str | None, *, tls_dir: Path | None, data_dir: Path | None, service: str = "ledger"
) -> OperatorConnection:
    """Both as they are named, or both from the stack that runs on the data directory.

    `service` is the name of the option that has the address, too. Raises Failure where something is missing: a
    certificate is presented to the service that belongs to it alone.
    """
    if (address is None) != (tls_dir is None):
        raise Failure(
            f"--{service} and --tls-dir go together.",
            ExitCode.USAGE,
            "USAGE",
            advice="Name both, or neither for the stack of the data directory.",
        )
    if address is None or tls_dir is None:
        data = DataDir(data_dir or default_root())
        state = load_state(data)
        if state is None or not state.supervisor.alive():
            raise no_stack(data)
        address, tls_dir = f"localhost:{state.ports[service]}", data.root / "pki" / "tls" / "operator"
    try:
        ca, key, certificate = ((tls_dir / name).read_bytes() for name in _FILES)
    except OSError as error:
        raise Failure(
            f"Cannot read the operator's certificate in {tls_dir}: {error.strerror}.",
            ExitCode.USAGE,
            "BAD_TLS_DIR",
            advice=f"The directory has {', '.join(_FILES)} of the mesh identity `operator`.",
        ) from error
    return OperatorConnection(address, ca, key, certificate)


class OperatorClient:
    """One channel to one service. Every failing call raises Failure."""

    def __init__(self, connection: OperatorConnection) -> None:
        self._channel = grpc.secure_channel(
            connection.target,
            grpc.ssl_channel_credentials(connection.ca, connection.key, connection.certificate),
            options=[("grpc.enable_http_proxy", 0), ("grpc.primary_user_agent", "pagemesh-cli")],
        )
        self._metadata = (("x-request-id", str(uuid.uuid4())),)
        self.stub = OperatorServiceStub(self._channel)
        self.jobs = JobServiceStub(self._channel)

    def __enter__(self) -> "OperatorClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def unary(self, method: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request) -> Response:
        """One call; its answer."""
        try:
            return method(request, timeout=TIMEOUT_S, metadata=self._metadata)
        except grpc.RpcError as error:
            failure = from_rpc_error(error)
            if failure.exit_code is ExitCode.REFUSED:
                failure.advice = "Only the certificate of the mesh identity `operator` may do this."
            raise failure from error
