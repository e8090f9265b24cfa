"""Which TCP port a process gets, and who holds one that is taken."""

import contextlib
import errno
import random
import socket
import sys
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


def is_free(port: int) -> bool:
    """Nobody listens on the port of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that connections of a server that just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def pick_free_port() -> int:
    """A port that nobody listens on now."""
    for _ in range(_TRIES):
        port = random.choice(_PICK_FROM)
        if is_free(port):
            return port
    raise StackError(f"No free TCP port between {_PICK_FROM.start} and {_PICK_FROM.stop - 1}.")


class Reservation:
    """Keeps other stacks on this machine off some ports, from before their servers bind them to after they let go.

    A name in Linux' abstract socket namespace stands for each port: it has the same reach as the port (the network
    namespace), nobody has to clean up after it, and it does not get in the server's way, as a bound port would.
    Elsewhere nothing is kept, and two stacks that start in the same second may choose the same port; the one that
    comes too late fails to start.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self, port: int) -> bool:
        """False where somebody listens on the port, or another stack has taken it."""
        if not is_free(port):
            return False
        if sys.platform != "linux":
            return True
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0pagemesh/port/{port}")
        except OSError as error:
            name.close()
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        self._sockets.append(name)
        return True

    def take_any(self) -> int:
        """A free port that was taken just now. Raises StackError where there is none."""
        for _ in range(_TRIES):
            port = random.choice(_PICK_FROM)
            if self.take(port):
                return port
        raise StackError(f"No free TCP port between {_PICK_FROM.start} and {_PICK_FROM.stop - 1}.")

    def close(self) -> None:
        """Lets all of them go."""
        for name in self._sockets:
            name.close()
        self._sockets.clear()


def listens(pid: int, port: int) -> bool:
    """True where the process itself listens on the port, and where the system does not tell (not Linux)."""
    if sys.platform != "linux":
        return True
    return _has_open(Path(f"/proc/{pid}"), _listening_inodes(port))


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
