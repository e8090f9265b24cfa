"""Spans of the whole stack: one trace from the edge to the last service, for everything that a caller can do."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import RunningStack
from tests.edge import files
from tests.edge.calling import Edge
from tests.edge.conftest import UPLOAD
from tests.fakes.collector import Collector, Told

EXTRACTOR = "pagemesh.extractor.v1.ExtractorService/"
SUMMARIZER = "pagemesh.summarizer.v1.SummarizerService/"
JOBS = "pagemesh.summarizer.v1.JobService/"
LEDGER = "pagemesh.ledger.v1.LedgerService/"
STANDING = "pagemesh.ledger.v1.IdentityService/GetApiKey"
"""A worker asks whether whoever handed a job in still may."""
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}}


class Traced:
    """A caller who begins each trace himself, and finds its spans."""

    def __init__(self, stack: RunningStack, collector: Collector) -> None:
        self.edge = Edge(stack.host, stack.port, stack.ca_file)
        self.key = stack.new_tenant("traced")
        self._collector = collector

    def call(self, rpc: str, request: Any, *, sampled: bool = True, **how: Any) -> tuple[str, list[dict[str, Any]]]:
        """The id of the trace, and the answers."""
        trace = secrets.token_hex(16)
        header = f"00-{trace}-{secrets.token_hex(8)}-{'01' if sampled else '00'}"
        outcome = self.edge.json(rpc, request, self.key, headers={"traceparent": header}, **how)
        assert outcome.code == "OK", outcome
        return trace, outcome.messages

    def spans(self, trace: str, enough: Callable[[list[Told]], bool]) -> list[Told]:
        """Those of one trace, once they are enough."""
        found = self._collector.until(lambda told: enough([span for span in told if span.trace == trace]))
        return [span for span in found if span.trace == trace]


@pytest.fixture(scope="module")
def traced(stack: RunningStack, collector: Collector) -> Traced:
    return Traced(stack, collector)


@pytest.fixture(scope="module")
def document(traced: Traced) -> str:
    trace, answers = traced.call(UPLOAD, {}, body=files.good(2, "Where does its trace lead?"))
    found = traced.spans(trace, has("extractor", UPLOAD, edge=True))
    path_of(found, UPLOAD, "extractor", "edge")
    return str(answers[0]["document"]["name"])


def has(service: str, *names: str, edge: bool = False) -> Callable[[list[Told]], bool]:
    """Whether a service told spans of these names, and the edge told those that it began with."""

    def enough(spans: list[Told]) -> bool:
        told = {span.name for span in spans if span.service == service}
        at_edge = {span.span for span in spans if span.service == "edge"}
        roots = [span for span in spans if span.service == "edge" and span.parent not in at_edge]
        return told >= set(names) and (not edge or any(span.name == "edge" for span in roots))

    return enough


def path_of(spans: list[Told], name: str, *services: str) -> Told:
    """The server span of that RPC in the first of `services`, after a look at who is above it: the others, in order."""
    by_id = {span.span: span for span in spans}
    first = next(span for span in spans if span.service == services[0] and span.name == name)
    at, met = first, [first.service]
    while at.parent in by_id:
        at = by_id[at.parent]
        if at.service != met[-1]:
            met.append(at.service)
    assert tuple(met) == services, met
    return first


def test_an_extraction_is_one_trace_with_its_parser_run(traced: Traced, document: str) -> None:
    # Nothing that is stored answers who brings a password.
    trace, _ = traced.call(EXTRACTOR + "ExtractPages", {"name": document, "password": "not needed"})
    found = traced.spans(trace, has("extractor", EXTRACTOR + "ExtractPages", "parse", edge=True))
    call = path_of(found, EXTRACTOR + "ExtractPages", "extractor", "edge")
    assert call.attributes["rpc.system"] == "grpc"
    assert call.attributes["rpc.service"] == EXTRACTOR.rstrip("/")
    assert call.attributes["rpc.method"] == "ExtractPages"
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert call.attributes["pagemesh.tenant"] == "traced"
    checks = [span for span in found if span.service == "ledger" and span.name.endswith("Authorization/Check")]
    assert len(checks) == 1
    (run,) = [span for span in found if span.name == "parse"]
    assert run.parent == call.span
    assert (run.attributes["pagemesh.pages"], run.attributes["pagemesh.format"]) == (2, "PDF")


def test_drawing_a_page_is_one_trace(traced: Traced, document: str) -> None:
    trace, _ = traced.call(EXTRACTOR + "RenderPage", {"name": document, "page": 2})
    found = traced.spans(trace, has("extractor", EXTRACTOR + "RenderPage", "draw", edge=True))
    path_of(found, EXTRACTOR + "RenderPage", "extractor", "edge")


def test_a_summary_is_one_trace_through_all_services(traced: Traced, document: str) -> None:
    trace, answers = traced.call(SUMMARIZER + "Summarize", {"document": document})
    wanted = has("summarizer", SUMMARIZER + "Summarize", "paid call", "chat lexrank", edge=True)
    settled, read = has("ledger", LEDGER + "Settle"), has("extractor", EXTRACTOR + "ExtractPages")
    found = traced.spans(trace, lambda spans: wanted(spans) and settled(spans) and read(spans))
    path_of(found, SUMMARIZER + "Summarize", "summarizer", "edge")
    path_of(found, EXTRACTOR + "ExtractPages", "extractor", "summarizer", "edge")
    path_of(found, LEDGER + "Reserve", "ledger", "summarizer", "edge")
    path_of(found, LEDGER + "Settle", "ledger", "summarizer", "edge")
    by_id = {span.span: span for span in found}
    asked = next(span for span in found if span.name == "chat lexrank")
    paid = by_id[asked.parent]
    assert asked.attributes["gen_ai.provider.name"] == "offline"
    assert asked.attributes["pagemesh.attempt"] == 1
    assert paid.attributes["gen_ai.request.model"] == "offline/lexrank"
    assert paid.attributes["pagemesh.cost_micros"] == int(answers[0]["summary"]["consumption"]["cost"]["micros"])
    assert paid.attributes["gen_ai.usage.input_tokens"] == asked.attributes["gen_ai.usage.input_tokens"]


@pytest.mark.parametrize(
    ("rpc", "request_", "below"),
    [
        (SUMMARIZER + "ExtractFields", {"json_schema": SCHEMA}, EXTRACTOR + "ExtractPages"),
        (SUMMARIZER + "Ask", {"question": "Where does the trace lead?"}, EXTRACTOR + "ExtractPages"),
    ],
    ids=["fields", "question"],
)
def test_what_the_summarizer_asks_the_extractor_is_in_the_trace(
    traced: Traced, document: str, rpc: str, request_: dict[str, Any], below: str
) -> None:
    about = {"documents": [document]} if "question" in request_ else {"document": document}
    trace, _ = traced.call(rpc, {**request_, **about})
    whole, asked = has("summarizer", rpc, edge=True), has("extractor", below)
    found = traced.spans(trace, lambda spans: whole(spans) and asked(spans))
    path_of(found, rpc, "summarizer", "edge")
    path_of(found, below, "extractor", "summarizer", "edge")


def test_a_job_goes_on_with_the_trace_it_was_handed_in_under(traced: Traced, document: str) -> None:
    work = {"document": document, "work": {"summarize": {"style": "SUMMARY_STYLE_BULLETS"}}}
    trace, answers = traced.call(JOBS + "CreateJob", work)
    done, handed_in = has("summarizer-worker", "job attempt", edge=True), has("summarizer", JOBS + "CreateJob")
    asked = has("ledger", STANDING)
    found = traced.spans(trace, lambda spans: done(spans) and handed_in(spans) and asked(spans))
    by_id = {span.span: span for span in found}
    attempt = next(span for span in found if span.name == "job attempt")
    assert attempt.attributes["pagemesh.job"] == answers[0]["job"]["name"]
    assert attempt.attributes["pagemesh.attempt"] == 1
    assert by_id[attempt.parent].name == JOBS + "CreateJob"
    path_of(found, STANDING, "ledger", "summarizer-worker", "summarizer", "edge")


def test_a_caller_who_wants_no_spans_gets_none(traced: Traced, document: str) -> None:
    silent, _ = traced.call(EXTRACTOR + "GetDocument", {"name": document}, sampled=False)
    loud, _ = traced.call(EXTRACTOR + "GetDocument", {"name": document})
    found = traced.spans(loud, has("extractor", EXTRACTOR + "GetDocument", edge=True))
    assert found
    assert traced.spans(silent, lambda spans: True) == []


def test_an_error_is_in_the_trace_with_its_reason(traced: Traced) -> None:
    trace = secrets.token_hex(16)
    header = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    absent = {"name": f"documents/{'0' * 32}"}
    assert traced.edge.json(EXTRACTOR + "GetDocument", absent, traced.key, headers=header).code == "NOT_FOUND"
    found = traced.spans(trace, has("extractor", EXTRACTOR + "GetDocument", edge=True))
    call = path_of(found, EXTRACTOR + "GetDocument", "extractor", "edge")
    assert (call.attributes["rpc.grpc.status_code"], call.attributes["error.type"]) == (5, "DOCUMENT_NOT_FOUND")
    assert not call.is_error, "what a caller does wrong is no fault of the server"
