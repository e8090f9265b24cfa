"""What the concern tells of a call: which calls, which thing, and nothing that was in them."""

import asyncio
from typing import Any

import grpc
import pytest

from pagemesh.extractor.v1 import document_pb2, extractor_service_pb2
from pagemesh.ledger.v1 import identity_pb2, identity_service_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2
from services.audit.concern import audited
from services.audit.event import Event
from services.audit.resources import resource_of
from services.runtime.access import of_method
from services.runtime.call import Call, Identity
from services.runtime.errors import InvalidArgument, NotFound, Unavailable
from services.runtime.middleware import Exchange, Policy
from services.telemetry.context import TraceContext

NAME = "documents/" + "0" * 32
EXTRACTOR = "/pagemesh.extractor.v1.ExtractorService/"
POLICY = Policy("pagemesh.local", frozenset({"edge"}))
ACME = Identity("acme", "apiKeys/k", "", frozenset())


class Told:
    """A trail that only remembers."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.events: list[tuple[Event, bool]] = []
        self.failure = failure

    async def record(self, event: Event, *, durable: bool, within_s: float | None = None) -> None:
        self.events.append((event, durable))
        if self.failure is not None:
            raise self.failure


async def called(
    method: str,
    request: Any = None,
    response: Any = None,
    *,
    error: BaseException | None = None,
    peer: str = "edge",
    identity: Identity | None = ACME,
    client: str = "ab" * 16,
    told: Told | None = None,
) -> list[tuple[Event, bool]]:
    told = told or Told()
    metadata = {"x-pagemesh-client": client}
    call = Call(method, "request-1", TraceContext.new())
    exchange = Exchange(of_method(method), None, metadata, call)  # type: ignore[arg-type]
    concern = audited(told, reads=frozenset({EXTRACTOR[1:] + "ExtractPages"}))  # type: ignore[arg-type]
    around: Any = concern(exchange, POLICY)
    if around is None:
        return told.events
    async with around:
        exchange.call.peer, exchange.call.identity = peer, identity
        for check in exchange.checks:
            check(request)
        if error is not None:
            raise error
        exchange.response = response
    return told.events


async def test_a_call_says_who_what_and_how_it_ended() -> None:
    request = extractor_service_pb2.GetDocumentRequest(name=NAME)
    ((event, durable),) = await called(EXTRACTOR + "GetDocument", request)
    assert (event.tenant, event.actor, event.request_id) == ("acme", "apiKeys/k", "request-1")
    assert (event.action, event.resource) == ("pagemesh.extractor.v1.ExtractorService/GetDocument", NAME)
    assert (event.code, event.reason, event.client, durable) == (0, "", "ab" * 16, False)


@pytest.mark.parametrize(
    ("method", "durable"),
    [
        ("GetDocument", False),
        ("SearchPages", False),
        ("ExtractPages", False),
        ("DeleteDocument", True),
        ("Nothing", False),
    ],
)
async def test_what_changes_something_is_waited_for(method: str, durable: bool) -> None:
    assert [d for _, d in await called(EXTRACTOR + method, None)] == [durable]


async def test_what_was_made_is_in_the_answer() -> None:
    answer = extractor_service_pb2.UploadDocumentResponse(document=document_pb2.Document(name=NAME))
    request = extractor_service_pb2.UploadDocumentRequest(display_name="secret name.pdf")
    ((event, durable),) = await called(EXTRACTOR + "UploadDocument", request, answer)
    assert (event.resource, durable) == (NAME, True)


@pytest.mark.parametrize(
    ("error", "code", "reason", "resource"),
    [
        (NotFound("DOCUMENT_NOT_FOUND", "x"), grpc.StatusCode.NOT_FOUND, "DOCUMENT_NOT_FOUND", NAME),
        (InvalidArgument("INVALID_FIELD", "x"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", ""),
        (RuntimeError("secret"), grpc.StatusCode.INTERNAL, "INTERNAL", NAME),
        (asyncio.CancelledError(), grpc.StatusCode.CANCELLED, "", NAME),
        (GeneratorExit(), grpc.StatusCode.CANCELLED, "", NAME),
    ],
    ids=["not-found", "invalid", "bug", "cancelled", "left"],
)
async def test_how_a_call_fails(error: BaseException, code: grpc.StatusCode, reason: str, resource: str) -> None:
    told = Told()
    request = extractor_service_pb2.GetDocumentRequest(name=NAME)
    with pytest.raises(type(error)):
        await called(EXTRACTOR + "GetDocument", request, error=error, told=told)
    ((event, _),) = told.events
    assert (event.code, event.reason, event.resource) == (code.value[0], reason, resource)


async def test_which_calls_are_told() -> None:
    method = EXTRACTOR + "GetDocument"
    assert await called(method, peer="summarizer") == []
    assert await called(method, identity=None) == []
    for infrastructure in ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
        assert await called(infrastructure) == []


async def test_a_change_that_is_not_written_down_is_not_answered() -> None:
    failing = Told(Unavailable("AUDIT_UNAVAILABLE", "x"))
    with pytest.raises(Unavailable, match="AUDIT_UNAVAILABLE"):
        await called(EXTRACTOR + "DeleteDocument", None, told=failing)
    with pytest.raises(NotFound):
        await called(EXTRACTOR + "DeleteDocument", None, told=failing, error=NotFound("DOCUMENT_NOT_FOUND", "x"))


async def test_a_client_that_is_no_hash_is_nobody() -> None:
    ((event, _),) = await called(EXTRACTOR + "GetDocument", client="203.0.113.77")
    assert event.client == ""


@pytest.mark.parametrize(
    ("message", "resource"),
    [
        (extractor_service_pb2.GetDocumentRequest(name=NAME), NAME),
        (extractor_service_pb2.UpdateDocumentRequest(document=document_pb2.Document(name=NAME)), NAME),
        (summarizer_service_pb2.SummarizeRequest(document=NAME), NAME),
        (extractor_service_pb2.SearchPagesRequest(query="documents/secret", documents=[NAME]), ""),
        (extractor_service_pb2.GetDocumentRequest(name="my secret text"), ""),
        (extractor_service_pb2.ListDocumentsResponse(documents=[document_pb2.Document(name=NAME)]), ""),
        (
            identity_service_pb2.CreateApiKeyResponse(api_key=identity_pb2.ApiKey(name="apiKeys/k"), secret="pm_k_s"),
            "apiKeys/k",
        ),
        (b"bytes", ""),
        (None, ""),
    ],
    ids=["name", "nested", "document", "query", "no-name", "list", "created", "bytes", "none"],
)
def test_which_thing_a_message_is_about(message: object, resource: str) -> None:
    assert resource_of(message) == resource
