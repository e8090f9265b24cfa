"""What answers the client in place of an edge, where a test must choose the answers; over TLS and real sockets."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from pagemesh.common.v1 import money_pb2
from pagemesh.ledger.v1 import ledger_service_pb2, ledger_service_pb2_grpc, usage_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2, summarizer_service_pb2_grpc, summary_pb2
from pagemesh_cli.stack.certificates import CertificateAuthority

Page = ledger_service_pb2.QueryUsageResponse


@dataclass
class Script:
    """What is answered, and what was asked."""

    summary: summary_pb2.Summary = field(default_factory=summary_pb2.Summary)
    usage: list[Page | grpc.StatusCode] = field(default_factory=list)
    """Answers one after the other; the last one again and again."""
    usage_asked: list[ledger_service_pb2.QueryUsageRequest] = field(default_factory=list)


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


@contextmanager
def scripted_edge(script: Script, authority: CertificateAuthority) -> Iterator[str]:
    """Serves for the block and answers the address. What is not scripted, such as GetDocument, is UNIMPLEMENTED."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    summarizer_service_pb2_grpc.add_SummarizerServiceServicer_to_server(_Summarizer(script), server)
    ledger = _Ledger(script)  # type: ignore[abstract]  # the rest of it is UNIMPLEMENTED
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
