"""Calls through the edge, as any other gRPC client would make them."""

import itertools
import time
import uuid
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import grpc
from google.api import httpbody_pb2
from google.protobuf import timestamp_pb2

from pagemesh.extractor.v1 import document_pb2, extractor_service_pb2, extractor_service_pb2_grpc
from pagemesh.ledger.v1 import (
    audit_service_pb2_grpc,
    credential_service_pb2_grpc,
    identity_service_pb2_grpc,
    ledger_service_pb2,
    ledger_service_pb2_grpc,
    usage_pb2,
)
from pagemesh.summarizer.v1 import (
    job_service_pb2_grpc,
    model_policy_service_pb2_grpc,
    schema_service_pb2_grpc,
    summarizer_service_pb2_grpc,
)
from pagemesh_cli.connection import Connection
from pagemesh_cli.failures import ExitCode, Failure, from_rpc_error
from pagemesh_cli.request_signing import SignedCalls, load_signer

CHUNK_BYTES = 256 * 1024
"""Of an upload; the contract allows 1 MiB, and nothing gets faster above this."""
UNARY_TIMEOUT_S = 30.0
STREAM_TIMEOUT_S = 300.0
"""What the edge allows a stream at most."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""As the services: no page is larger."""
_USAGE_PAGE = 1000
_USAGE_PAGES = 10
_SHORTEST_TIMEOUT_S = 0.1
_LONGEST_PACE_S = 5.0
"""What somebody at a terminal waits for without being told."""
_NAME_LENGTH = 255

Request = TypeVar("Request")
Response = TypeVar("Response")
STREAM_WINDOW_BYTES = 4 * 1024 * 1024
"""How far an answer may be ahead of who reads it: 40 MB/s where a round trip takes 0.1 s."""

Result = TypeVar("Result")


class Client:
    """One channel to one edge. Every failing call raises Failure.

    Each client has one request id, sent with all its calls: what a command did can be found by it in logs and usage.
    """

    def __init__(self, connection: Connection, *, request_id: str | None = None) -> None:
        self.request_id = request_id or str(uuid.uuid4())
        self._channel = grpc.secure_channel(
            connection.target,
            grpc.composite_channel_credentials(
                grpc.ssl_channel_credentials(connection.ca),
                _call_credentials(connection),
            ),
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                # Left to itself the window grows with the delay, and on a busy machine to all that an answer has.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", STREAM_WINDOW_BYTES),
                ("grpc.enable_http_proxy", 0 if connection.local else 1),
                ("grpc.primary_user_agent", "pagemesh-cli"),
            ],
        )
        self.extractor = extractor_service_pb2_grpc.ExtractorServiceStub(self._channel)
        self.summarizer = summarizer_service_pb2_grpc.SummarizerServiceStub(self._channel)
        self.schemas = schema_service_pb2_grpc.SchemaServiceStub(self._channel)
        self.model_policy = model_policy_service_pb2_grpc.ModelPolicyServiceStub(self._channel)
        self.jobs = job_service_pb2_grpc.JobServiceStub(self._channel)
        self.identity = identity_service_pb2_grpc.IdentityServiceStub(self._channel)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(self._channel)
        self.ledger = ledger_service_pb2_grpc.LedgerServiceStub(self._channel)
        self.credentials = credential_service_pb2_grpc.CredentialServiceStub(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def unary(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        *,
        timeout_s: float = UNARY_TIMEOUT_S,
    ) -> Response:
        """One call; its answer."""

        def once() -> Response:
            with self._failures():
                return method(request, timeout=timeout_s, metadata=self._metadata())

        return self.paced(once, timeout_s=timeout_s)

    def stream(
        self,
        method: "grpc.UnaryStreamMultiCallable[Request, Response]",
        request: Request,
        *,
        timeout_s: float = STREAM_TIMEOUT_S,
    ) -> Iterator[Response]:
        """One call with many answers; leaving the loop early cancels it."""

        def answers() -> Generator[Response, None, None]:
            with self._failures():
                call = method(request, timeout=timeout_s, metadata=self._metadata())
                try:
                    yield from call
                finally:
                    call.cancel()

        def begin() -> tuple[Generator[Response, None, None], list[Response]]:
            running = answers()
            return running, list(itertools.islice(running, 1))

        # The edge refuses before the first answer, or not at all.
        running, first = self.paced(begin, timeout_s=timeout_s)
        with closing(running):
            yield from first
            yield from running

    def upload(
        self,
        path: Path,
        *,
        sent: Callable[[int], None],
        retention: "document_pb2.Retention.ValueType" = document_pb2.RETENTION_UNSPECIFIED,
        expire_time: timestamp_pb2.Timestamp | None = None,
        timeout_s: float = STREAM_TIMEOUT_S,
    ) -> extractor_service_pb2.UploadDocumentResponse:
        """Stores the file; `sent` is told the bytes of each piece. OSError where it cannot be read."""
        # What is no text in the file's name cannot be sent.
        name = path.name.encode(errors="replace").decode()[:_NAME_LENGTH]
        first = extractor_service_pb2.UploadDocumentRequest(
            display_name=name, retention=retention, expire_time=expire_time
        )
        with self._failures(), path.open("rb") as file:
            pieces = _pieces(file, first, sent)
            return self.extractor.UploadDocument(pieces, timeout=timeout_s, metadata=self._metadata())

    def paced(self, call: Callable[[], Result], *, timeout_s: float) -> Result:
        """The call's result; where the edge wants this key to wait for a moment, it is waited, within the time. Raises
        its Failure otherwise."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return call()
            except Failure as failure:
                wait_s = failure.retry_after_s
                if failure.reason != "RATE_LIMITED" or wait_s is None or wait_s > _LONGEST_PACE_S:
                    raise
                if time.monotonic() + wait_s > deadline:
                    raise
                time.sleep(max(wait_s, _SHORTEST_TIMEOUT_S))

    def patiently(
        self, call: Callable[[], Result], *, timeout_s: float, pause: Callable[[float], None] = time.sleep
    ) -> Result:
        """The call's result; one that is refused because there were too many is made again when the server says so,
        within the time. Raises its Failure otherwise."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return call()
            except Failure as failure:
                wait_s = failure.retry_after_s
                if failure.exit_code is not ExitCode.LIMIT or wait_s is None or time.monotonic() + wait_s > deadline:
                    raise
                pause(max(wait_s, _SHORTEST_TIMEOUT_S))

    def usage_of_request(
        self, request_id: str, *, wanted: Collection[str], deadline: float
    ) -> list[usage_pb2.UsageRecord]:
        """Usage records of calls that were made for the request, newest first, until all event ids are among them.

        `deadline` is of time.monotonic(). A summary makes 10,000 calls at most, which is where the pages end too.
        """
        request = ledger_service_pb2.QueryUsageRequest(request_id=request_id, page_size=_USAGE_PAGE)
        missing = set(wanted)
        records: list[usage_pb2.UsageRecord] = []
        for _ in range(_USAGE_PAGES):
            timeout_s = max(deadline - time.monotonic(), _SHORTEST_TIMEOUT_S)
            page = self.unary(self.ledger.QueryUsage, request, timeout_s=timeout_s)
            records.extend(page.records)
            missing -= {record.event.event_id for record in page.records}
            request.page_token = page.next_page_token
            if not missing or not request.page_token:
                break
        return records

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-request-id", self.request_id),)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def _pieces(
    file: BinaryIO, message: extractor_service_pb2.UploadDocumentRequest, sent: Callable[[int], None]
) -> Iterator[extractor_service_pb2.UploadDocumentRequest]:
    """The file as upload messages, the first of which carries what `message` says; an empty file is one empty message,
    so that the service can say what is wrong."""
    data = file.read(CHUNK_BYTES)
    while True:
        message.content.CopyFrom(httpbody_pb2.HttpBody(content_type="application/octet-stream", data=data))
        yield message
        sent(len(data))
        data = file.read(CHUNK_BYTES)
        if not data:
            return
        message = extractor_service_pb2.UploadDocumentRequest()


def _call_credentials(connection: Connection) -> grpc.CallCredentials:
    if connection.signing_key is None:
        return grpc.access_token_call_credentials(connection.key)
    signer = load_signer(connection.signing_key, connection.key)
    return grpc.metadata_call_credentials(SignedCalls(connection.key, signer))
