"""Processes: ready, stopped, killed, never left behind."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.process import Process, ProcessId, ProcessSpec, wait_until

_ENVIRONMENT = {"PATH": os.defpath}


def python(tmp_path: Path, code: str, **options: object) -> ProcessSpec:
    command = (sys.executable, "-I", "-S", "-c", textwrap.dedent(code))
    return ProcessSpec("subject", command, tmp_path / "subject.log", _ENVIRONMENT, **options)  # type: ignore[arg-type]


def logged(tmp_path: Path, text: str) -> bool:
    return text in (tmp_path / "subject.log").read_text()


def test_stops_when_asked(tmp_path: Path) -> None:
    process = Process(python(tmp_path, "import signal; print('up', flush=True); signal.pause()"))
    assert wait_until(lambda: logged(tmp_path, "up"), timeout_s=10)
    assert process.stop()
    assert process.exit_code() == -signal.SIGTERM


def test_is_killed_when_it_does_not_stop(tmp_path: Path) -> None:
    code = """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", flush=True)
        while True:
            signal.pause()
    """
    process = Process(python(tmp_path, code, stop_timeout_s=0.2))
    assert wait_until(lambda: logged(tmp_path, "deaf"), timeout_s=10)
    assert not process.stop()
    assert process.exit_code() == -signal.SIGKILL


def test_takes_its_own_children_along(tmp_path: Path) -> None:
    code = """
        import os, signal, subprocess, sys
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
        print("child", child.pid, flush=True)
        signal.pause()
    """
    process = Process(python(tmp_path, code))
    assert wait_until(lambda: logged(tmp_path, "\n"), timeout_s=10)
    child = ProcessId.of(int((tmp_path / "subject.log").read_text().split()[1]))
    assert child is not None
    assert process.stop()
    assert child.wait_gone(10)


def test_dies_with_its_starter_however_that_dies(tmp_path: Path) -> None:
    """The starter is killed with SIGKILL, so that it can do nothing at all about its child."""
    starter = f"""
        import sys
        from pathlib import Path
        from pagemesh_cli.stack.process import Process, ProcessSpec
        code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
        command = (sys.executable, "-I", "-S", "-c", code)
        process = Process(ProcessSpec("child", command, Path({str(tmp_path)!r}) / "subject.log"))
        print(process.pid, flush=True)
        input()
    """
    command = [sys.executable, "-c", textwrap.dedent(starter)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = ProcessId.of(int(parent.stdout.readline()))
        assert child is not None
        assert wait_until(lambda: logged(tmp_path, "up"), timeout_s=10)
        parent.kill()
    assert child.wait_gone(10)


def test_end_before_ready_shows_the_log(tmp_path: Path) -> None:
    process = Process(python(tmp_path, "import sys; sys.exit('the disk is on fire')"))

    def never() -> None:
        raise OSError("nobody there")

    with pytest.raises(StackError, match=r"subject ended with exit code 1.*\n.*\n.*the disk is on fire"):
        process.wait_ready(never, timeout_s=10)


def test_only_what_this_run_logged_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "subject.log"
    log.write_text("long ago\n" * 100)
    process = Process(python(tmp_path, "print('just now', flush=True); import signal; signal.pause()"))
    assert wait_until(lambda: logged(tmp_path, "just now"), timeout_s=10)
    assert process.log_tail() == f"\n    {log} ends with:\n    just now"
    assert process.log_written() == "just now\n"
    os.truncate(log, 0)
    assert process.log_tail() == "", "turned over meanwhile"
    process.stop()


def test_never_ready_says_what_was_wrong_last(tmp_path: Path) -> None:
    process = Process(python(tmp_path, "import signal; signal.pause()"))

    def never() -> None:
        raise OSError("nobody there")

    with pytest.raises(StackError, match=r"not ready within 0.1 s \(nobody there\)"):
        process.wait_ready(never, timeout_s=0.1)
    process.stop()


def test_logs_are_private(tmp_path: Path) -> None:
    (tmp_path / "subject.log").touch(mode=0o644)
    Process(python(tmp_path, "")).stop()
    assert (tmp_path / "subject.log").stat().st_mode & 0o777 == 0o600


def test_a_number_that_was_given_anew_is_another_process() -> None:
    me = ProcessId.of(os.getpid())
    assert me is not None
    assert me.alive()
    earlier = ProcessId(os.getpid(), "another boot/1")
    assert not earlier.alive()
    earlier.kill()  # would end this very test


def test_zombies_are_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        identity = ProcessId.of(child.pid)
        assert identity is not None
        child.kill()
        assert identity.wait_gone(10)  # nobody has waited for it yet
    assert ProcessId.of(child.pid) is None
