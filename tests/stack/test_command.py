"""The command itself, before it reaches any stack: its help, and how it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pagemesh_cli.stack.settings import unknown_settings
from pagemesh_cli.verbs.demo import require_document
from tests.stack.running import Command


@pytest.fixture
def pagemesh(tmp_path: Path) -> Command:
    return Command.on(tmp_path / "data", COLUMNS="200")


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("up", ("[env: PAGEMESH_HOME; default: ~/.pagemesh]", "[default: 8443]")),
        ("usage", ("[env: PAGEMESH_URL;", "[env: PAGEMESH_API_KEY]", "[env: PAGEMESH_CA_FILE]")),
    ],
)
def test_help_names_variables_and_defaults(pagemesh: Command, verb: str, words: tuple[str, ...]) -> None:
    told = pagemesh(verb, "--help").out
    for word in words:
        assert word in told


@pytest.mark.parametrize("arguments", [("usage", "--limit", "many"), ("upload", "--nonsense"), ("extract",)])
def test_a_wrong_command_line_is_told_to_machines_as_json(pagemesh: Command, arguments: tuple[str, ...]) -> None:
    answer = pagemesh(*arguments, "--json")
    assert answer.code == 2
    assert answer.error["reason"] == "USAGE"
    assert answer.error["message"]
    assert answer.err.count("\n") == 1
    for_people = pagemesh(*arguments)
    assert for_people.code == 2
    assert "Usage: pagemesh" in for_people.err


def test_what_goes_to_a_program_of_its_own_is_not_ours_to_read(pagemesh: Command) -> None:
    answer = pagemesh("ledger", "--nonsense", "--", "--json")
    assert answer.code == 2
    assert "Usage: pagemesh ledger" in answer.err


@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "--json"), ("--help",)])
def test_a_full_disk_takes_no_more_words_than_a_line(pagemesh: Command, arguments: tuple[str, ...]) -> None:
    code, told = run_into(pagemesh, arguments, os.open("/dev/full", os.O_WRONLY))
    assert code == 1
    assert told == "Cannot write the output: No space left on device.\n"


@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "--json"), ("--help",)])
def test_a_reader_that_has_enough_is_nothing_to_talk_about(pagemesh: Command, arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert run_into(pagemesh, arguments, writer) == (1, "")


def run_into(pagemesh: Command, arguments: tuple[str, ...], stdout: int) -> tuple[int, str]:
    """Exit code and stderr, with stdout into the file, which is closed here."""
    result = subprocess.run(
        [sys.executable, "-m", "pagemesh_cli", *arguments],
        env=dict(pagemesh.environment),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(stdout)
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    ("content", "reason"), [(b"hello", "UNSUPPORTED_MEDIA_TYPE"), (b"", "UNSUPPORTED_MEDIA_TYPE"), (None, "BAD_FILE")]
)
def test_the_demo_looks_at_the_file_before_it_starts_anything(
    pagemesh: Command, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "file.pdf"
    if content is not None:
        path.write_bytes(content)
    answer = pagemesh("demo", str(path))
    assert answer.code == 2
    assert answer.err.startswith(f"{reason}: ")
    assert "starting a stack" not in answer.err


@pytest.mark.parametrize("head", [b"%PDF-1.7", b"junk" * 100 + b"%PDF-1.4", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_the_demo_takes_what_the_extractor_takes(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "file").write_bytes(head + b"\n" * 2000)
    require_document(tmp_path / "file")


def test_settings_that_nobody_knows_are_told() -> None:
    known = {"PAGEMESH_LOG_LEVEL": "INFO", "PAGEMESH_HOME": "/x", "PAGEMESH_MISTRAL_API_KEY": "k", "HOME": "/"}
    assert unknown_settings(known) == []
    told = unknown_settings({**known, "PAGEMESH_MISTRAL_APIKEY": "k", "PAGEMESH_XYZZY": "1"})
    assert told == [
        "PAGEMESH_MISTRAL_APIKEY is no setting; did you mean PAGEMESH_MISTRAL_API_KEY?",
        "PAGEMESH_XYZZY is no setting; it has no effect.",
    ]
