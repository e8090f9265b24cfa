"""Which TCP port a process gets, and who holds one that is taken."""

import contextlib
import errno
import random
import socket
from dataclasses import dataclass
from pathlib import Path

from pagemesh_cli.stack.errors import StackError

LOOPBACK = "127.0.0.1"
# Below the range that the kernel takes ports of outgoing connections from (32768 up on Linux, 49152 on macOS), so that
# a port which is free now is still free when its server binds it.
_PICK_FROM = range(20000, 32000)
_TRIES = 200


@dataclass(frozen=True)
class Holder:
    """A process that listens on a port."""

    pid: int
    command: str


def is_free(port: int, host: str = LOOPBACK) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that connections of a server that just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def pick_free_port(host: str = LOOPBACK, *, avoid: frozenset[int] = frozenset()) -> int:
    """A port that nobody listens on now and that is not one of `avoid`."""
    for _ in range(_TRIES):
        port = random.choice(_PICK_FROM)
        if port not in avoid and is_free(port, host):
            return port
    raise StackError(f"No free TCP port between {_PICK_FROM.start} and {_PICK_FROM.stop - 1}.")


def holder(port: int) -> Holder | None:
    """Who listens on the port; None where the system does not tell (another user's process, or not Linux)."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        if _has_open(process, inodes):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                return None  # it ended just now, and the port with it
            return Holder(int(process.name), b" ".join(words[:3]).decode(errors="replace").strip())
    return None


def _has_open(process: Path, names: set[str]) -> bool:
    try:
        links = list((process / "fd").iterdir())
    except OSError:
        return False  # it ended meanwhile, or is not ours to look at
    for link in links:
        with contextlib.suppress(OSError):  # closed meanwhile
            if str(link.readlink()) in names:
                return True
    return False


def _listening_inodes(port: int) -> set[str]:
    """The sockets that listen on the port, as /proc/PID/fd names them (proc(5), /proc/net/tcp)."""
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            local_port, state, inode = int(fields[1].rpartition(":")[2], 16), fields[3], fields[9]
            if local_port == port and state == "0A":
                found.add(f"socket:[{inode}]")
    return found
