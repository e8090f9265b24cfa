"""A summary that was made is printed, whatever becomes of the question what it cost."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from pagemesh.summarizer.v1 import summary_pb2
from pagemesh_cli.client import Client
from pagemesh_cli.connection import resolve
from pagemesh_cli.output import Output
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.verbs.bill import LOOK_UP_TIMEOUT_S, PAUSES_S, recorded_usage
from tests.stack.conftest import Edge
from tests.stack.scripted_edge import Script, page_of, scripted_edge

DOCUMENT = f"documents/{'7' * 32}"
Look = Callable[[Script], tuple[list[str], list[float]]]
"""Looks the usage of the script's summary up; answers the event ids that were found, and the pauses in between."""


def summary(
    *event_ids: str, settled: bool = False, failed_pages: tuple[int, ...] = (), text: str = "It rains."
) -> summary_pb2.Summary:
    return summary_pb2.Summary(
        sentences=[summary_pb2.SummarySentence(text=text, grounded=True)],
        failed_pages=failed_pages,
        consumption=summary_pb2.Consumption(settled=settled, usage_event_ids=event_ids),
    )


@pytest.fixture
def look(mesh_pki: CertificateAuthority, tmp_path: Path) -> Iterator[Look]:
    with ExitStack() as stack:

        def look_up(script: Script) -> tuple[list[str], list[float]]:
            url = stack.enter_context(scripted_edge(script, mesh_pki))
            connection = resolve(url=url, key="pm_x", ca_file=mesh_pki.ca_file, data_dir=tmp_path, environment={})
            client = stack.enter_context(Client(connection))
            pauses: list[float] = []
            records = recorded_usage(client, Output(), script.summary, pause=pauses.append)
            return [record.event.event_id for record in records], pauses

        yield look_up


@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["whole", "streamed"])
def test_without_usage_read_the_summary_is_printed_and_all_is_well(edge: Edge, stream: tuple[str, ...]) -> None:
    command = edge(Script(summary("a"), [grpc.StatusCode.PERMISSION_DENIED]))
    answer = command("summarize", DOCUMENT, *stream)
    assert answer.code == 0, answer.err
    assert "  1. It rains." in answer.out
    assert answer.out.count("It rains.") == 1
    assert "warning: what the ledger recorded could not be looked up: PERMISSION_DENIED" in answer.err
    assert "usage.read" in answer.err


def test_machines_get_the_summary_first_and_the_warning_as_json(edge: Edge) -> None:
    answer = edge(Script(summary("a"), [grpc.StatusCode.UNAVAILABLE]))("summarize", DOCUMENT, "--json")
    assert answer.code == 0, answer.err
    assert [next(iter(line)) for line in answer.lines] == ["summary", "usage"]
    assert answer.lines[0]["summary"]["sentences"][0]["text"] == "It rains."
    assert answer.lines[1]["usage"] == []
    assert answer.lines[1]["requestId"]
    assert answer.err.startswith('{"warning": ')
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["whole", "streamed"])
def test_pages_that_failed_make_the_summary_incomplete(edge: Edge, stream: tuple[str, ...]) -> None:
    command = edge(Script(summary("a", settled=True, failed_pages=(2, 5)), [page_of("a")]))
    answer = command("summarize", DOCUMENT, *stream)
    assert answer.code == 8
    assert "PAGES_FAILED" in answer.err
    assert ": 2, 5." in answer.err
    assert "  1. It rains." in answer.out
    assert answer.out.splitlines()[-2].split() == ["time", "operation", "model", "tokens", "cost"]
    assert answer.out.splitlines()[-1].split() == [
        *("2026-01-31T08:00:01Z", "summarize.map", "offline/lexrank", "12+3", "0.000042", "USD")
    ]


def test_a_quote_is_shown_where_it_says_more_than_its_sentence(edge: Edge) -> None:
    made = summary("a", settled=True, text="- It rains.")
    for quote in ("It\nrains.", "It rains, they say."):
        made.sentences[0].citations.add(page=1, quote=quote)
    command = edge(Script(made, [page_of("a")]))
    out = command("summarize", DOCUMENT, "--style", "bullets").out
    assert out.startswith("  - It rains.\n     page 1, ")
    assert out.count("\u201c") == 1
    assert "\u201cIt rains, they say.\u201d" in out
    assert out.count("verbatim") == 1
    streamed = command("summarize", DOCUMENT, "--style", "bullets", "--stream").out
    assert streamed == out


def test_what_is_settled_is_asked_for_once(look: Look, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script(summary("a", "b", settled=True), [page_of("a")])
    assert look(script) == (["a"], [])
    assert len(script.usage_asked) == 1
    assert "has not recorded every call" in capsys.readouterr().err


def test_what_is_on_its_way_is_waited_for_with_few_calls(look: Look, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script(summary("a", "b"), [page_of("a"), page_of("a"), page_of("b", "a")])
    assert look(script) == (["b", "a"], list(PAUSES_S[:2]))
    assert capsys.readouterr().err == ""
    never = Script(summary("a", "b"), [page_of("a")])
    assert look(never) == (["a"], list(PAUSES_S))
    assert len(never.usage_asked) == len(PAUSES_S) + 1
    assert "has not recorded every call" in capsys.readouterr().err


def test_pauses_grow_and_fit_into_the_time() -> None:
    assert sorted(PAUSES_S) == list(PAUSES_S)
    assert sum(PAUSES_S) < LOOK_UP_TIMEOUT_S
    assert len(PAUSES_S) <= 5


def test_the_list_is_followed_until_all_calls_are_found(look: Look) -> None:
    script = Script(summary("a", "b"), [page_of("a", next_page_token="more"), page_of("b", next_page_token="rest")])
    assert look(script) == (["a", "b"], [])
    assert [request.page_token for request in script.usage_asked] == ["", "more"]
    assert {request.page_size for request in script.usage_asked} == {1000}


def test_the_list_is_not_followed_without_end(look: Look) -> None:
    script = Script(summary("a", settled=True), [page_of("x", next_page_token="more")])
    look(script)
    assert len(script.usage_asked) == 10
