"""`pagemesh jobs` against the whole stack, whose worker does them."""

import json
from pathlib import Path

import pytest

from tests.conftest import RunningStack
from tests.edge import files
from tests.stack.running import Command


@pytest.fixture(scope="module")
def pagemesh(stack: RunningStack) -> Command:
    return Command.on(stack.data.root)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two that can be read, and one that cannot."""
    folder = tmp_path_factory.mktemp("inbox")
    for number in range(2):
        (folder / f"{number}.pdf").write_bytes(files.good(2, f"Handed in as number {number}."))
    (folder / "broken.pdf").write_bytes(files.encrypted())
    return folder


def test_a_folder_is_done_and_what_failed_is_in_the_dead_letters(pagemesh: Command, folder: Path) -> None:
    ended = pagemesh("jobs", "submit", str(folder), "--priority", "urgent", "--watch")
    assert ended.code == 8, ended.err
    batch = ended.out.split()[0]
    assert "2 of 3 jobs succeeded" in ended.err
    dead = pagemesh("jobs", "dead", "--batch", batch)
    assert "failed" in dead.out
    (job,) = [word for word in dead.out.split() if word.startswith("jobs/")]
    shown = pagemesh("jobs", "show", job, "--json").json
    assert shown["state"] == "JOB_STATE_FAILED"
    assert "password" in shown["error"]["message"].lower()
    assert f"{job} queued" in pagemesh("jobs", "retry", job).out
    watched = pagemesh("jobs", "watch", job)
    assert watched.code == 1
    assert "ended" in watched.out
    assert len(pagemesh("jobs", "list", "--batch", batch, "--state", "succeeded").out.splitlines()) == 3
    retried = pagemesh("jobs", "retry", "--dead", "--batch", batch)
    assert f"{job} queued" in retried.out
    assert pagemesh("jobs", "watch", batch).code == 8


def test_a_batch_is_listed_cancelled_and_retried(pagemesh: Command, folder: Path) -> None:
    batch = pagemesh("jobs", "submit", str(folder), "--priority", "batch", "--json").json["name"]
    cancelled = pagemesh("jobs", "cancel", batch)
    assert (cancelled.code, "cancelled now" in cancelled.err) == (0, True)
    assert batch not in pagemesh("jobs", "batches", "--open").out
    (line,) = [line for line in pagemesh("jobs", "batches", "--limit", "100").out.splitlines() if batch in line]
    assert line.endswith(" USD spent")
    retried = pagemesh("jobs", "retry", batch, "--cancelled")
    assert (retried.code, "queued now" in retried.err) == (0, True)
    assert pagemesh("jobs", "cancel", batch, "--json").json["name"] == batch
    assert pagemesh("jobs", "cancel", f"jobBatches/{'0' * 32}", "--json").error["reason"] == "BATCH_NOT_FOUND"


def test_an_estimate_is_not_watched_and_a_question_is_about_a_folder(
    pagemesh: Command, folder: Path, tmp_path: Path
) -> None:
    both = pagemesh("jobs", "submit", str(folder), "--estimate", "--watch", "--json")
    assert (both.code, both.error["reason"]) == (2, "BAD_ARGUMENTS")
    assert "--estimate" in both.error["advice"]
    for name in ("0.pdf", "1.pdf"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    asked = pagemesh("estimate", str(tmp_path), "--ask", "What does a page cost?", "--json")
    assert asked.code == 0, asked.err
    assert asked.json["estimate"]["pageCount"] > 0
    for number in range(99):
        (tmp_path / f"more{number}.pdf").touch()
    many = pagemesh("estimate", str(tmp_path), "--ask", "What does a page cost?", "--json")
    assert (many.code, many.error["reason"]) == (2, "TOO_MANY_DOCUMENTS")
    assert "101" in many.error["message"]


def test_the_operator_sees_whose_jobs_wait(pagemesh: Command, stack: RunningStack, folder: Path) -> None:
    assert pagemesh("jobs", "submit", str(folder), "--priority", "batch", "--watch").code == 8
    queues = pagemesh("jobs", "queues")
    assert queues.code == 0, queues.err
    told = pagemesh("jobs", "queues", "--limit", "100", "--json").json
    assert all(queue["tenant"].startswith("tenants/") for queue in told["queues"])
    half = pagemesh("jobs", "queues", "--summarizer", "localhost:1", "--json")
    assert (half.code, half.error["reason"]) == (2, "USAGE")
    theirs = str(stack.tls_dir("edge"))
    address = f"localhost:{stack.state.ports['summarizer']}"
    refused = pagemesh("jobs", "queues", "--summarizer", address, "--tls-dir", theirs, "--json")
    assert (refused.code, refused.error["reason"]) == (4, "METHOD_NOT_ALLOWED")


def test_a_job_is_shown_cancelled_and_refused(pagemesh: Command, folder: Path) -> None:
    batch = pagemesh("jobs", "submit", str(folder / "0.pdf"), "--work", "extract", "--watch", "--json")
    assert batch.code == 0, batch.err
    listed = pagemesh("jobs", "list", "--limit", "1", "--json").json
    assert "2 of 2 pages" in pagemesh("jobs", "show", listed["name"]).out
    assert f"{listed['name']} succeeded" in pagemesh("jobs", "cancel", listed["name"]).out, "it had ended"
    refused = pagemesh("jobs", "retry", listed["name"], "--json")
    assert refused.error["reason"] == "JOB_NOT_RETRYABLE"
    assert pagemesh("jobs", "show", "0" * 32, "--json").error["reason"] == "JOB_NOT_FOUND"
    assert pagemesh("jobs", "retry", "--json").error["reason"] == "BAD_ARGUMENTS"


def test_fields_are_found_and_questions_answered(pagemesh: Command, folder: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"number": {"type": "string"}}}))
    source = str(folder / "0.pdf")
    for wanted, shown in (
        (("--schema", str(schema)), "of the fields are grounded"),
        (("--ask", "Which number?"), "page"),
    ):
        ended = pagemesh("jobs", "submit", source, *wanted, "--watch")
        assert ended.code == 0, ended.err
        listed = pagemesh("jobs", "list", "--limit", "1", "--json").json
        assert shown in pagemesh("jobs", "show", listed["name"]).out
    both = pagemesh("jobs", "submit", source, "--ask", "Who?", "--schema", str(schema), "--json")
    assert both.error["reason"] == "BAD_ARGUMENTS"


def test_what_a_folder_would_cost(pagemesh: Command, folder: Path) -> None:
    told = pagemesh("jobs", "submit", str(folder), "--estimate")
    assert told.code == 8
    assert "1 of 3 documents could not be estimated" in told.err
    for part in ("jobs     2, ", "price    0.", "DOCUMENT_ENCRYPTED: ", "0.pdf", "1.pdf"):
        assert part in told.out
    *lines, total = pagemesh("estimate", str(folder), "--length", "long", "--json").lines
    assert (len(lines), total["total"]["estimatedCount"], total["total"]["errorCount"]) == (3, 2, 1)
    prices = [line["job"]["estimate"]["price"]["expected"] for line in lines if "estimate" in line["job"]]
    summed = sum(int(price.get("micros", 0)) for price in prices)
    assert int(total["total"]["price"]["expected"].get("micros", 0)) == summed
