"""`pagemesh up`, `status`, `down`, and everything that may happen in between, with the real servers and services."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pagemesh_cli.demo import document_path
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.process import wait_until
from pagemesh_cli.stack.state import load_state
from tests.stack.running import Command, descendants

# Whole stacks start and stop here, on machines that may be busy.
pytestmark = pytest.mark.timeout(300)
PARTS = ["postgres", "valkey", "ledger", "extractor", "summarizer", "worker", "edge"]


def test_from_an_empty_directory_through_kills_to_a_clean_end(short_dir: Path) -> None:
    root = short_dir / "data"
    pagemesh = Command.on(root)

    up = pagemesh("up", "--detach", "--port", "0")
    assert up.code == 0, up.err
    shell = dict(line.removeprefix("export ").split("=", 1) for line in up.out.splitlines())
    secret = shell["KEY"]
    assert secret.startswith("pm_")
    assert shell["URL"] == pagemesh.state.url
    assert Path(shell["CA"]).read_text().startswith("-----BEGIN CERTIFICATE")

    status = pagemesh("status", "--json").json
    assert status["healthy"] is True
    assert [part["name"] for part in status["parts"]] == PARTS
    assert all(part["pid"] and part["port"] and part["restarts"] == 0 for part in status["parts"])

    again = pagemesh("up", "--detach")
    assert again.code == 0
    assert "already running" in again.err
    assert again.out.splitlines() == up.out.splitlines()[:2], "the same lines, without the key"
    assert str(root / "admin.json") in again.err
    assert secret not in again.out + again.err, "the key is shown once"
    assert pagemesh("up").code == 1, "a second stack on the same directory"

    uploaded = pagemesh("upload", str(document_path()), "--json").json
    name = uploaded["document"]["name"]

    service_is_restarted(pagemesh, "extractor")
    supervisor_dies(pagemesh, root)
    assert pagemesh("status").code == 1

    up = pagemesh("up", "--detach", "--port", "0")
    assert up.code == 0, up.err
    told = [json.loads(line) for line in (root / "logs" / "supervisor.log").read_text().splitlines()]
    assert all(line["timestamp"].endswith("Z") and line["service"] == "supervisor" for line in told)
    events = [line["event"] for line in told]
    assert any("did not stop in good order" in event for event in events)
    assert any("extractor was killed by SIGKILL" in event for event in events), "what the first supervisor told"
    assert secret not in up.out + up.err
    assert pagemesh("extract", name, "--pages", "1").code == 0, "documents outlive the stack"

    processes = pagemesh.state.processes()
    down = pagemesh("down")
    assert down.code == 0, down.err
    assert not any(process.alive() for process in processes)
    assert descendants(root) == []
    assert load_state(DataDir(root)) is None
    nothing = pagemesh("status")
    assert (nothing.code, nothing.out) == (3, "")
    assert "pagemesh up" in nothing.err
    assert pagemesh("down").code == 0
    last_words = (root / "logs" / "postgres.log").read_text().splitlines()[-1]
    assert last_words.endswith("database system is shut down")


def service_is_restarted(pagemesh: Command, part: str) -> None:
    before = pagemesh.process(part)
    before.kill()
    assert wait_until(lambda: pagemesh("status", "--json").json["healthy"], timeout_s=60, poll_s=0.5)
    row = next(row for row in pagemesh("status", "--json").json["parts"] if row["name"] == part)
    assert row["restarts"] == 1
    assert row["lastExit"] == "was killed by SIGKILL"
    assert pagemesh.process(part) != before


def supervisor_dies(pagemesh: Command, root: Path) -> None:
    """Killed with SIGKILL it can stop nobody: the kernel does."""
    state = pagemesh.state
    state.supervisor.kill()
    for process in state.processes():
        assert process.wait_gone(30)
    assert wait_until(lambda: descendants(root) == [], timeout_s=30), descendants(root)


def test_a_signal_while_starting_leaves_nothing_behind(short_dir: Path) -> None:
    root = short_dir / "data"
    environment = dict(Command.on(root).environment)
    command = [sys.executable, "-m", "pagemesh_cli", "up", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:

        def has_started_postgres() -> bool:
            state = load_state(DataDir(root))
            return state is not None and len(state.parts) > 0

        assert wait_until(has_started_postgres, timeout_s=60)
        up.send_signal(signal.SIGINT)
        _, err = up.communicate(timeout=60)
    assert up.returncode == 130, err
    assert "stopped before everything was up" in err
    assert descendants(root) == []
    assert load_state(DataDir(root)) is None


def test_a_wrong_setting_is_named_and_nothing_runs_on(short_dir: Path) -> None:
    """And nothing else is told: neither what an earlier start logged, nor what went well in this one."""
    root = short_dir / "data"
    (root / "logs").mkdir(parents=True, mode=0o700)
    DataDir(root).marker.write_text("1\n")
    for name in ("ledger", "extractor", "supervisor"):
        (root / "logs" / f"{name}.log").write_text('  PAGEMESH_PEERS: of an earlier start\n{"level": "error"}\n' * 20)
    settings = {"PAGEMESH_LOG_LEVEL": "LOUD", "PAGEMESH_DRAIN_S": "-1", "PAGEMESH_MAX_PAGES": "0"}
    up = Command.on(root, PAGEMESH_LOG_LEVL="INFO", **settings)("up", "--detach", "--port", "0")
    assert up.code == 1
    assert "warning: PAGEMESH_LOG_LEVL is no setting; did you mean PAGEMESH_LOG_LEVEL?" in up.err
    faults = up.err[up.err.index("STACK: ") :].splitlines()
    assert faults[0] == "STACK: Settings are refused:"
    assert sorted(line.split()[0] for line in faults[1:]) == [f"{name}:" for name in sorted(settings)]
    both = [line for line in faults if line.endswith("(ledger, extractor)")]
    assert sorted(line.split()[0] for line in both) == ["PAGEMESH_DRAIN_S:", "PAGEMESH_LOG_LEVEL:"]
    assert any("PAGEMESH_MAX_PAGES" in line and line.endswith("(extractor)") for line in faults)
    assert not {"{", "earlier"} & set("".join(faults[1:]).replace("{", " { ").split())
    assert descendants(root) == []
    assert load_state(DataDir(root)) is None


@pytest.mark.parametrize("mode", [["--detach"], []], ids=["detached", "foreground"])
def test_a_taken_port_is_named_before_anything_is_made(short_dir: Path, mode: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        up = Command.on(short_dir / "data")("up", "--port", str(port), *mode)
    assert up.code == 1
    assert f"Port {port} is in use by process" in up.err
    assert not (short_dir / "data" / "postgres").exists()


def test_a_directory_of_a_newer_version_is_refused(short_dir: Path) -> None:
    pagemesh = Command.on(short_dir / "data")
    DataDir(short_dir / "data").prepare()
    DataDir(short_dir / "data").marker.write_text("999\n")
    up = pagemesh("up", "--port", "0")
    assert up.code == 1
    assert "newer Pagemesh" in up.err
    doctor = pagemesh("doctor", "--json")
    assert doctor.code == 1
    assert [item["what"] for item in doctor.json["findings"] if item["grade"] == "fail"] == ["data directory"]


def test_demo_tells_the_truth(short_dir: Path) -> None:
    demo = Command.on(short_dir / "unused")("demo")
    assert demo.code == 0, demo.err + demo.out
    assert "page 1, [" in demo.out
    assert "offline/lexrank  " in demo.out, "the row of the ledger"
    assert "stopped cleanly" in demo.err
    assert not (short_dir / "unused").exists()
