"""What a parser process can no longer do. Each attempt is made in a process of its own, behind the real filter."""

import os
import platform
import signal
import subprocess
import sys

import pytest

from services.extractor.adapters import sandbox

linux_only = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="seccomp is Linux's"
)

ATTEMPTS = {
    "read a file": "open('/etc/hostname').read()",
    "write a file": "open('/tmp/out-of-the-sandbox', 'w')",
    "remove a file": "os.unlink('/tmp/out-of-the-sandbox')",
    "see whether there is a file": "os.stat('/etc/hostname')",
    "see it from a folder": "os.stat('hostname', dir_fd=0)",
    "list a folder": "os.listdir('/')",
    "open a socket": "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "make a pair of sockets": "socket.socketpair()",
    "fork": "os.fork()",
    "run a program": "os.execv('/bin/true', ['true'])",
    "signal its parent": "os.kill(os.getppid(), 0)",
    "trace": "assert libc.ptrace(0, 0, 0, 0) != -1",
    "raise its limits": "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
    "make executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "own signals of a descriptor": "fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
}
PREAMBLE = """
import ctypes, fcntl, mmap, os, resource, socket, sys
from services.extractor.adapters import sandbox
libc = ctypes.CDLL(None)
assert sandbox.forbid_system_calls()
"""


def run(script: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)


@linux_only
@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_forbidden_is_what_a_parser_has_no_need_of(attempt: str) -> None:
    script = f"""{PREAMBLE}
try:
    {attempt}
except (OSError, ValueError, AssertionError):
    os._exit(7)
os._exit(0)
"""
    done = run(script)
    assert done.returncode == 7, done.stderr


@linux_only
def test_allowed_is_what_a_parser_needs(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("file") / "data"
    path.write_bytes(b"contents of the file")
    script = f"""
import socket
ours, theirs = socket.socketpair()
opened = open({str(path)!r}, 'rb')
{PREAMBLE}
with mmap.mmap(opened.fileno(), 20, access=mmap.ACCESS_READ) as mapping:
    theirs.sendall(bytes(mapping))
assert ours.recv(100) == b'contents of the file'
hog = bytearray(50_000_000)
del hog
os._exit(0)
"""
    done = run(script)
    assert done.returncode == 0, done.stderr


def test_memory_is_limited_from_where_it_is() -> None:
    script = """
import os
from services.extractor.adapters import sandbox
sandbox.limit(memory_bytes=64 * 1024 * 1024, open_files=8, cpu_s=60)
bytearray(16 * 1024 * 1024)
try:
    bytearray(128 * 1024 * 1024)
except MemoryError:
    os._exit(7)
"""
    assert run(script).returncode == 7


def test_computing_is_limited_for_life() -> None:
    script = """
from services.extractor.adapters import sandbox
sandbox.limit(memory_bytes=64 * 1024 * 1024, open_files=8, cpu_s=1)
while True:
    pass
"""
    assert run(script).returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_an_orphan_ends_at_once() -> None:
    pid = os.fork()
    if pid == 0:
        sandbox.die_with(parent_pid=1 << 30)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
