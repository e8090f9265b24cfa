"""The client verbs against a real stack: what they print, and the exit codes that scripts rely on."""

import datetime as dt
import json
import os
import pty
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from pagemesh_cli.demo import document_path
from pagemesh_cli.stack.certificates import IDENTITIES, CertificateAuthority
from pagemesh_cli.stack.process import wait_until
from pagemesh_cli.stack.state import load_state
from tests.conftest import RunningStack
from tests.stack.running import Command

UNKNOWN = f"documents/{'0' * 32}"


@pytest.fixture(scope="module")
def pagemesh(stack: RunningStack) -> Command:
    return Command.on(stack.data.root)


@pytest.fixture(scope="module")
def document(pagemesh: Command) -> str:
    answer = pagemesh("upload", str(document_path()))
    assert answer.code == 0, answer.err
    return answer.out.strip()


def test_upload_answers_the_same_document_again(pagemesh: Command, document: str) -> None:
    again = pagemesh("upload", str(document_path()), "--json").json
    assert again["created"] is False
    assert again["document"]["name"] == document
    assert again["document"]["mediaType"] == "application/pdf"


def test_extract_prints_text_page_by_page(pagemesh: Command, document: str) -> None:
    answer = pagemesh("extract", document)
    assert answer.code == 0, answer.err
    pages = answer.out.split("\f")
    assert len(pages) == 4
    assert pages[3] == ""
    assert pages[0].startswith("Reading documents you did not write")


def test_extract_prints_events_for_machines(pagemesh: Command, document: str) -> None:
    events = pagemesh("extract", document, "--pages", "2-3", "--format", "ndjson").lines
    assert [next(iter(event)) for event in events] == ["start", "page", "page", "end"]
    assert [event["page"]["number"] for event in events[1:3]] == [2, 3]
    assert events[1]["page"]["blocks"][0]["box"]["x1"] > 0


def test_a_progress_bar_on_the_terminal_leaves_a_piped_result_alone(pagemesh: Command, document: str) -> None:
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "pagemesh_cli", "extract", str(document_path())]
    with subprocess.Popen(command, env=dict(pagemesh.environment), stdout=subprocess.PIPE, stderr=end) as run:
        os.close(end)
        out, _ = run.communicate(timeout=60)
    shown = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert run.returncode == 0
    assert out.startswith(b"Reading documents you did not write")
    assert "reading pages" in shown
    assert "parsers are among" not in shown


def test_a_reader_that_has_enough_is_no_disaster(pagemesh: Command, document: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pagemesh_cli", "extract", document],
        env=dict(pagemesh.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        told = run.stderr.read()
    assert (run.returncode, told) == (1, b"")


def test_every_sentence_of_a_summary_is_cited(pagemesh: Command) -> None:
    answer = pagemesh("summarize", str(document_path()), "--length", "short", "--json")
    assert answer.code == 0, answer.err
    assert answer.err == "", "stderr is quiet where a machine listens"
    first, last = answer.lines
    summary = first["summary"]
    assert summary["sentences"]
    for sentence in summary["sentences"]:
        assert sentence["grounded"] is True
        for citation in sentence["citations"]:
            assert citation["page"] >= 1
            assert citation["quote"]
            assert citation["boxes"]
    recorded = {record["event"]["eventId"] for record in last["usage"]}
    assert set(summary["consumption"]["usageEventIds"]) <= recorded


def test_summary_for_people_shows_page_quote_box_and_bill(pagemesh: Command, document: str) -> None:
    out = pagemesh("summarize", document, "--style", "bullets").out
    for part in ("  - ", "     page ", "[", "verbatim", "cost 0.", "time  ", "offline/lexrank  "):
        assert part in out


def test_an_estimate_spends_nothing_and_bounds_what_follows(pagemesh: Command, document: str) -> None:
    wanted = ("--focus", "what an estimate is for", "--reuse-similar")
    found = pagemesh("estimate", document, *wanted, "--json").json["estimate"]
    assert int(found["price"]["low"]["micros"]) <= int(found["price"]["expected"]["micros"])
    out = pagemesh("estimate", document, *wanted).out
    for part in ("price    0.", "offline/lexrank", "calls    ", "tokens   ", "time     "):
        assert part in out
    refused = pagemesh("summarize", document, *wanted, "--max-cost", "0")
    assert "MAX_COST_EXCEEDED" in refused.err
    enough = f"{int(found['price']['high']['micros']) / 1_000_000:.6f}"
    answer = pagemesh("summarize", document, *wanted, "--max-cost", enough, "--json")
    assert answer.code == 0, answer.err
    assert pagemesh("estimate", document, *wanted).out.startswith("free: ")
    for verb in (("estimate",), ("summarize",), ("fields", "--schema", "schemas/any")):
        unknown = pagemesh(verb[0], document, *verb[1:], "--ocr-model", "nobody/nothing", "--json")
        assert unknown.error["reason"] == "MODEL_UNKNOWN", verb
    assert pagemesh("summarize", document, "--max-cost", "much").code == 2


def test_stream_brings_each_sentence_and_ends_with_the_whole_summary(pagemesh: Command, document: str) -> None:
    request = ("summarize", document, "--focus", "prices", "--stream")
    events = pagemesh(*request, "--json").lines
    kinds = [next(iter(event)) for event in events]
    sentences = events[kinds.index("summary")]["summary"]["sentences"]
    assert kinds.count("sentence") == len(sentences) > 0
    assert kinds[-1] == "usage"
    known = pagemesh(*request).out
    assert f"{len(sentences):>3}. " in known, "an answer out of the cache has all its sentences, too"


def test_usage_adds_up(pagemesh: Command, document: str) -> None:
    pagemesh("summarize", document, "--focus", "budgets")
    answer = pagemesh("usage", "--document", document, "--json").json
    assert int(answer["totalRecords"]) == len(answer["records"]) > 0
    cost = sum(int(record["cost"]["micros"]) for record in answer["records"])
    assert cost == int(answer["totalCost"]["micros"])
    assert f"{len(answer['records'])} records, " in pagemesh("usage", "--document", document).out
    limited = pagemesh("usage", "--limit", "1", "--json").json
    assert len(limited["records"]) == 1
    assert pagemesh("usage", "--since", "2099-01-01", "--json").json["records"] == []


def test_usage_takes_the_times_that_it_prints(pagemesh: Command, document: str) -> None:
    pagemesh("summarize", document, "--focus", "times")
    newest = pagemesh("usage", "--limit", "1", "--json").json["records"][0]["event"]["occurTime"]
    since = pagemesh("usage", "--since", newest, "--json")
    assert since.code == 0, since.err
    assert int(since.json["totalRecords"]) >= 1
    header, row, *_ = pagemesh("usage", "--limit", "1", "--since", "12h").out.splitlines()
    assert header.split() == ["time", "operation", "model", "tokens", "cost"]
    assert pagemesh("usage", "--since", row.split()[0]).code == 0
    assert pagemesh("usage", "--until", "12h", "--json").json["totalRecords"] == "0"


def test_usage_is_added_up_by_what_is_asked_for(pagemesh: Command, document: str) -> None:
    pagemesh("summarize", document, "--focus", "sums")
    answer = pagemesh("usage", "--by", "day", "--by", "model", "--json").json
    assert sum(int(group["records"]) for group in answer["groups"]) == int(answer["totalRecords"]) > 0
    assert sum(int(group["cost"]["micros"]) for group in answer["groups"]) == int(answer["totalCost"]["micros"])
    assert "records" not in answer or answer["records"] == []
    out = pagemesh("usage", "--by", "model", "--by", "tag:team", "--top", "1").out
    assert out.split()[:5] == ["model", "tag", "records", "tokens", "cost"]
    for by in ("api_key", "project", "user", "job", "operation"):
        assert pagemesh("usage", "--by", by, "--model", "offline/lexrank").code == 0
    for wrong in (
        ("--by", "weather"),
        ("--by", "tag"),
        ("--by", "day:x"),
        ("--tag", "team"),
        ("--by", "day", "--forecast"),
    ):
        assert pagemesh("usage", *wrong).code == 2, wrong


def test_a_forecast_says_when_it_has_too_little_history(pagemesh: Command, document: str) -> None:
    told = pagemesh("usage", "--forecast", "--json").json
    assert told["tooLittleHistory"] is True
    assert "no forecast" in pagemesh("usage", "--forecast").out


def test_usage_is_saved_as_a_file(pagemesh: Command, document: str, tmp_path: Path) -> None:
    pagemesh("summarize", document, "--focus", "files")
    total = int(pagemesh("usage", "--document", document, "--json").json["totalRecords"])
    for name, form in (("usage.csv", "csv"), ("usage.ndjson", "ndjson")):
        path = tmp_path / name
        saved = pagemesh("usage", "--document", document, "--export", str(path), "--format", form, "--json").json
        assert saved["bytes"] == path.stat().st_size
        assert len(path.read_text().splitlines()) == total + (form == "csv")
    streamed = pagemesh("usage", "--document", document, "--export", "-", "--format", "ndjson")
    assert (streamed.code, streamed.out) == (0, (tmp_path / "usage.ndjson").read_text())
    assert not Path("-").exists()
    assert pagemesh("usage", "--export", str(tmp_path / "usage.csv")).code == 2
    assert pagemesh("usage", "--export", str(tmp_path / "usage.csv"), "--force").code == 0


def test_a_key_does_what_its_scopes_say_until_it_is_revoked(pagemesh: Command, stack: RunningStack) -> None:
    made = pagemesh("keys", "create", "robot", "--scope", "documents.read", "--expires-in", "1h", "--json").json
    other = Command.on(stack.data.root, PAGEMESH_API_KEY=made["secret"])
    assert made["apiKey"]["name"] in other("whoami").out
    refused = other("upload", str(document_path()), "--json")
    assert refused.code == 4
    assert refused.error["requestId"]
    assert pagemesh("keys", "revoke", made["apiKey"]["name"]).code == 0
    assert wait_until(lambda: other("whoami").code == 4, timeout_s=35, poll_s=0.5)


def test_summarising_needs_its_own_scope_alone(pagemesh: Command, stack: RunningStack, document: str) -> None:
    made = pagemesh("keys", "create", "writer", "--scope", "summaries.create", "--json").json
    answer = Command.on(stack.data.root, PAGEMESH_API_KEY=made["secret"])("summarize", document)
    assert answer.code == 0, answer.err
    assert "  1. " in answer.out
    assert "usage.read" in answer.err


def test_whoami(pagemesh: Command) -> None:
    who = pagemesh("whoami", "--json").json
    assert who["tenant"] == "tenants/local"
    assert "keys.admin" in who["scopes"]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["extract", UNKNOWN], 5, None),
        (["summarize", UNKNOWN], 5, None),
        (["extract", "no/such/file.pdf"], 2, "BAD_FILE"),
        (["extract", UNKNOWN, "--pages", "5-1"], 2, "BAD_PAGES"),
        (["summarize", "DOCUMENT", "--focus", "x" * 501], 2, None),
        (["summarize", "DOCUMENT", "--audience", "x" * 201], 2, None),
        (["estimate", "DOCUMENT", "--audience", "x" * 201], 2, None),
        (["summarize", "DOCUMENT", "--language", "not a language"], 2, None),
        (["keys", "create", "robot", "--scope", "everything"], 2, None),
        (["keys", "create", "robot", "--scope", "usage.read", "--expires-in", "soon"], 2, "BAD_DURATION"),
        (["keys", "revoke", "apiKeys/0000000000000000"], 5, None),
        (["whoami", "--key", "pm_0000000000000000_x"], 4, "UNAUTHENTICATED"),
        (["whoami", "--url", "https://localhost:1", "--key", "x"], 3, None),
        (["whoami", "--url", "ftp://localhost", "--key", "x"], 2, "BAD_URL"),
        (["whoami", "--url", "https://localhost:1"], 4, "NO_KEY"),
        (["usage", "--since", "yesterday"], 2, "USAGE"),
        (["usage", "--limit", "many"], 2, "USAGE"),
        (["upload", "--nonsense"], 2, "USAGE"),
    ],
)
def test_exit_codes(pagemesh: Command, document: str, arguments: list[str], code: int, reason: str | None) -> None:
    answer = pagemesh(*(document if word == "DOCUMENT" else word for word in arguments), "--json")
    assert answer.code == code, answer
    assert reason is None or answer.error["reason"] == reason
    assert answer.error["message"]


def test_a_bad_field_is_named(pagemesh: Command, document: str) -> None:
    answer = pagemesh("summarize", document, "--focus", "x" * 501)
    assert answer.err.count("options.focus") == 1, "the message says it, so no second line does"
    assert "request id" in answer.err


def test_a_request_that_reached_nobody_has_no_id(pagemesh: Command) -> None:
    answer = pagemesh("whoami", "--url", "https://localhost:1", "--key", "x")
    assert answer.code == 3
    assert "request id" not in answer.err
    assert "pagemesh status" in answer.err


def test_unknown_options_are_usage_errors(pagemesh: Command) -> None:
    assert pagemesh("upload", "--nonsense").code == 2
    assert pagemesh("summarize", UNKNOWN, "--length", "endless").code == 2


def test_what_is_no_document_is_refused(pagemesh: Command, tmp_path: Path) -> None:
    for name, content in {"text.pdf": b"hello", "empty.pdf": b""}.items():
        (tmp_path / name).write_bytes(content)
        answer = pagemesh("upload", str(tmp_path / name), "--json")
        assert answer.code == 2, answer
        assert answer.error["reason"]


def test_a_server_that_never_answers_costs_the_time_out_only(pagemesh: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://localhost:{silent.getsockname()[1]}"
        answer = pagemesh("extract", UNKNOWN, "--timeout", "0.5", "--url", url, "--key", "x", "--json")
    assert answer.code == 7, answer


def test_doctor_is_content_with_a_running_stack(pagemesh: Command) -> None:
    answer = pagemesh("doctor", "--json")
    assert answer.code == 0, answer.out
    looked_at = {item["what"] for item in answer.json["findings"]}
    assert {"python", "certificates", "disk", "clock", "postgres", "valkey", "ledger", "edge"} <= looked_at


def test_no_secret_in_argument_lists_or_logs(stack: RunningStack, pagemesh: Command) -> None:
    pagemesh("whoami")
    secrets = [stack.admin_key, *json.loads(stack.data.secrets_file.read_text()).values()]
    texts = [path.read_text(errors="replace") for path in stack.data.logs.iterdir()]
    state = load_state(stack.data)
    assert state is not None
    for process in [state.supervisor, *state.processes()]:
        texts.append(Path(f"/proc/{process.pid}/cmdline").read_text())
    for secret in secrets:
        assert not any(secret in text for text in texts)


def test_certificates_rotate_under_a_running_stack(stack: RunningStack, pagemesh: Command) -> None:
    authority = CertificateAuthority(stack.data.root / "pki")
    before = served_serial(stack)
    for identity in IDENTITIES:
        authority.rotate(identity, now=dt.datetime.now(dt.UTC))
    assert wait_until(lambda: served_serial(stack) != before, timeout_s=20, poll_s=0.2)
    assert pagemesh("whoami").code == 0
    assert pagemesh("status", "--json").json["healthy"] is True


def served_serial(stack: RunningStack) -> int:
    context = ssl.create_default_context(cafile=stack.ca_file)
    with (
        socket.create_connection((stack.host, stack.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number
