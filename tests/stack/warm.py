"""The command without its half second of imports: each run is a process of its own, forked from one that has them.

A run has its own arguments, environment, folder and streams, and ends like any process. What this leaves out is how a
fresh interpreter starts; test_command.py and all that is run at a terminal start one.
"""

import contextlib
import gc
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

_READY = b"ready\n"
_REQUEST_BYTES = 2**20


class WarmCommand:
    """A process that waits for what it is to run, until it is closed."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.stack.warm", str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        assert self._ours.recv(len(_READY)) == _READY

    def run(self, arguments: list[str], environment: Mapping[str, str], *, timeout_s: float) -> tuple[int, str, str]:
        """Exit code, stdout and stderr. Raises subprocess.TimeoutExpired, with the run killed."""
        out, err = io.BytesIO(), io.BytesIO()
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            stack.enter_context(ours)
            with (
                theirs,
                Path(os.devnull).open("rb") as nothing,
                _pipe(out, stack) as stdout,
                _pipe(err, stack) as stderr,
            ):
                fds = [theirs.fileno(), nothing.fileno(), stdout, stderr]
                socket.send_fds(self._ours, [b"run"], fds)
            ours.settimeout(timeout_s)
            request = "\0".join([str(Path.cwd()), str(len(arguments)), *arguments])
            settings = "\0".join(f"{name}={value}" for name, value in environment.items())
            ours.sendall(f"{request}\0{settings}".encode("utf-8", "surrogateescape"))
            ours.shutdown(socket.SHUT_WR)
            pid = 0
            try:
                pid = int(_line(ours))
                code = int(_line(ours))
            except TimeoutError:
                if pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, timeout_s) from None
        return code, _text(out), _text(err)

    def close(self) -> None:
        """Ends it; runs under way go on."""
        self._ours.close()
        self._process.wait(10)


def _text(written: io.BytesIO) -> str:
    return written.getvalue().decode().replace("\r\n", "\n")


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(1)
        assert piece, "the run ended without a word"
        line += piece
    return line


@contextlib.contextmanager
def _pipe(into: io.BytesIO, stack: contextlib.ExitStack) -> Iterator[int]:
    """The end to write to; what is written there is read until nobody holds it any more, which `stack` waits for."""
    reading, writing = os.pipe()

    def read() -> None:
        with os.fdopen(reading, "rb") as pipe:
            into.write(pipe.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    stack.callback(thread.join, 30)
    try:
        yield writing
    finally:
        os.close(writing)


def _serve(requests: socket.socket) -> None:
    # Nobody waits for the children of this process: they tell themselves how their runs ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, fds, _, _ = socket.recv_fds(requests, 16, 4)
        if not message:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            _watch(fds)
        for fd in fds:
            os.close(fd)


def _watch(fds: list[int]) -> None:
    """In a process for one run: has it run in a child, and tells its pid and its exit code."""
    with socket.socket(fileno=fds[0]) as connection:
        pid = os.fork()
        if pid == 0:
            _become(connection, fds[1:])
        for fd in fds[1:]:
            os.close(fd)
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(connection: socket.socket, streams: list[int]) -> NoReturn:
    """The run itself."""
    request = bytearray()
    while (piece := connection.recv(65_536)) and len(request) < _REQUEST_BYTES:
        request += piece
    connection.close()
    folder, count, *rest = request.decode("utf-8", "surrogateescape").split("\0")
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({name: text for name, _, text in (item.partition("=") for item in rest[int(count) :]) if name})
    time.tzset()
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
        os.close(fd)
    # As an interpreter opens them.
    sys.stdin = os.fdopen(0, "r", encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.argv = ["pagemesh", *rest[: int(count)]]
    from pagemesh_cli.__main__ import main

    main()
    sys.exit(0)


if __name__ == "__main__":
    # As pagemesh_cli.__main__ has it, before gRPC is imported. No channel is made before the fork.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import typer.main

    from pagemesh_cli.app import app

    # Of a run's CPU time, two thirds go into what is the same in each: typer imports pydantic for its first option, and
    # makes the commands anew from their functions. A run has its copy of what is made here.
    import typer._adapters  # isort: skip

    made = typer.main.get_command(app)
    typer.main.get_command = lambda typer_instance: made
    gc.collect()
    gc.freeze()  # or each run copies all of it

    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        inherited.sendall(_READY)
        _serve(inherited)
