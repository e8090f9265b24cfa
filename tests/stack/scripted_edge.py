"""What answers the client in place of an edge, where a test must choose the answers; over TLS and real sockets."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from pagemesh.common.v1 import money_pb2
from pagemesh.extractor.v1 import extractor_service_pb2, extractor_service_pb2_grpc
from pagemesh.ledger.v1 import ledger_service_pb2, ledger_service_pb2_grpc, usage_pb2
from pagemesh.summarizer.v1 import (
    answer_pb2,
    embedding_pb2,
    summarizer_service_pb2,
    summarizer_service_pb2_grpc,
    summary_pb2,
)
from pagemesh_cli.stack.certificates import CertificateAuthority

Page = ledger_service_pb2.QueryUsageResponse
Answer = Message | threading.Event
"""A message that is sent, a google.rpc.Status that the call ends with, or a wait until the event is set."""


@dataclass
class Script:
    """What is answered, and what was asked."""

    summary: summary_pb2.Summary = field(default_factory=summary_pb2.Summary)
    usage: list[Page | grpc.StatusCode] = field(default_factory=list)
    """Answers one after the other; the last one again and again."""
    usage_asked: list[ledger_service_pb2.QueryUsageRequest] = field(default_factory=list)
    extractor: dict[str, list[list[Answer]]] = field(default_factory=dict)
    """The answers to each call of a method of the extractor, call after call; the last ones again and again."""
    asked: list[tuple[str, Any]] = field(default_factory=list)
    """Method and request of each call that reached the extractor; of a stream of requests, their list."""
    answer: answer_pb2.Answer = field(default_factory=answer_pb2.Answer)
    questions: list[answer_pb2.AskRequest | answer_pb2.StreamAskRequest] = field(default_factory=list)

    embedded: embedding_pb2.EmbedDocumentResponse = field(default_factory=embedding_pb2.EmbedDocumentResponse)
    embeddings: list[embedding_pb2.EmbedDocumentRequest] = field(default_factory=list)

    def asked_of(self, method: str) -> list[Any]:
        return [request for name, request in self.asked if name == method]


class _Summarizer(summarizer_service_pb2_grpc.SummarizerServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def Summarize(
        self, request: summarizer_service_pb2.SummarizeRequest, context: grpc.ServicerContext
    ) -> summarizer_service_pb2.SummarizeResponse:
        return summarizer_service_pb2.SummarizeResponse(summary=self._script.summary)

    def StreamSummarize(
        self, request: summarizer_service_pb2.StreamSummarizeRequest, context: grpc.ServicerContext
    ) -> Iterator[summarizer_service_pb2.StreamSummarizeResponse]:
        for sentence in self._script.summary.sentences:
            yield summarizer_service_pb2.StreamSummarizeResponse(sentence=sentence)
        yield summarizer_service_pb2.StreamSummarizeResponse(summary=self._script.summary)

    def EmbedDocument(
        self, request: embedding_pb2.EmbedDocumentRequest, context: grpc.ServicerContext
    ) -> embedding_pb2.EmbedDocumentResponse:
        self._script.embeddings.append(request)
        return self._script.embedded

    def Ask(self, request: answer_pb2.AskRequest, context: grpc.ServicerContext) -> answer_pb2.AskResponse:
        self._script.questions.append(request)
        return answer_pb2.AskResponse(answer=self._script.answer)

    def StreamAsk(
        self, request: answer_pb2.StreamAskRequest, context: grpc.ServicerContext
    ) -> Iterator[answer_pb2.StreamAskResponse]:
        self._script.questions.append(request)
        for statement in self._script.answer.statements:
            yield answer_pb2.StreamAskResponse(text_delta=statement.text)
            yield answer_pb2.StreamAskResponse(statement=statement)
        yield answer_pb2.StreamAskResponse(answer=self._script.answer)


class _Ledger(ledger_service_pb2_grpc.LedgerServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def QueryUsage(self, request: ledger_service_pb2.QueryUsageRequest, context: grpc.ServicerContext) -> Page:
        asked = self._script.usage_asked
        asked.append(request)
        answer = self._script.usage[min(len(asked), len(self._script.usage)) - 1]
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "the key does not have the scope usage.read")
        return answer


class _Extractor(extractor_service_pb2_grpc.ExtractorServiceServicer):
    def __init__(self, script: Script) -> None:
        for method in script.extractor:
            setattr(self, method, _scripted(script, method))


def _scripted(script: Script, method: str) -> Callable[[Any, grpc.ServicerContext], Any]:
    descriptor = extractor_service_pb2.DESCRIPTOR.services_by_name["ExtractorService"].methods_by_name[method]

    def answers(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        if descriptor.client_streaming:
            request = list(request)
        script.asked.append((method, request))
        calls = script.extractor[method]
        for answer in calls[min(len(script.asked_of(method)), len(calls)) - 1]:
            if isinstance(answer, status_pb2.Status):
                context.abort_with_status(rpc_status.to_status(answer))
            elif isinstance(answer, threading.Event):
                answer.wait(60)
            else:
                yield answer

    def first(request: Any, context: grpc.ServicerContext) -> Message:
        return next(answers(request, context))

    return answers if descriptor.server_streaming else first


def refusal(code: str, reason: str, *, retry_s: float | None = None) -> status_pb2.Status:
    """A status with its machine reason, and when to try again."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain="pagemesh")]
    if retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(retry_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code_pb2.Code.Value(code), message="words", details=packed)


@contextmanager
def scripted_edge(script: Script, authority: CertificateAuthority) -> Iterator[str]:
    """Serves for the block and answers the address. What is not scripted, such as GetDocument, is UNIMPLEMENTED."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    extractor = _Extractor(script)  # type: ignore[abstract]  # what is not scripted is UNIMPLEMENTED
    extractor_service_pb2_grpc.add_ExtractorServiceServicer_to_server(extractor, server)
    summarizer = _Summarizer(script)  # type: ignore[abstract]  # the rest of it, too
    summarizer_service_pb2_grpc.add_SummarizerServiceServicer_to_server(summarizer, server)
    ledger = _Ledger(script)  # type: ignore[abstract]  # the rest of it, too
    ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server(ledger, server)
    folder = authority.tls_dir("edge")
    pair = ((folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield f"https://localhost:{port}"
    finally:
        server.stop(grace=None).wait(10)


def page_of(*event_ids: str, next_page_token: str = "") -> Page:
    """An answer with a record for each id."""
    return Page(records=[_record(event_id) for event_id in event_ids], next_page_token=next_page_token)


def _record(event_id: str) -> usage_pb2.UsageRecord:
    event = usage_pb2.UsageEvent(
        event_id=event_id, operation="summarize.map", model="offline/lexrank", input_tokens=12, output_tokens=3
    )
    event.occur_time.FromJsonString("2026-01-31T08:00:01.250Z")
    return usage_pb2.UsageRecord(event=event, cost=money_pb2.Money(currency="USD", micros=42))
