"""What a parser process can no longer do. Each attempt is made in a process of its own, behind the real filter."""

import os
import platform
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize(
    ("column", "header"),
    [(0, "x86_64-linux-gnu/asm/unistd_64.h"), (1, "asm-generic/unistd.h")],
    ids=["x86_64", "aarch64"],
)
def test_numbers_of_system_calls_are_the_kernels(column: int, header: str) -> None:
    """On whatever machine this runs; the headers of the kernel say it of both."""
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"there is no {path}: the package linux-libc-dev has it")
    # The calls whose arguments differ between 32 and 64 bits are marked, and have the same number on both.
    kernel = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    ours = {**sandbox._MAY, **sandbox._MAY_WITHOUT_EXEC, "fcntl": sandbox._FCNTL}
    wanted = {name: numbers[column] for name, numbers in ours.items() if numbers[column] is not None}
    assert {name: int(kernel[name]) for name in wanted} == wanted


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_lets_through_what_is_listed_and_nothing_else(machine: str) -> None:
    """The program itself, run by hand, so that it is also known for the machine that this one is not."""
    column = list(sandbox._AUDIT_ARCH).index(machine)
    program, arch = sandbox._filter(machine), sandbox._AUDIT_ARCH[machine]
    listed = {numbers[column] for numbers in sandbox._MAY.values()} - {None}
    checked = {numbers[column] for numbers in sandbox._MAY_WITHOUT_EXEC.values()}
    fcntl = sandbox._FCNTL[column]
    for number in range(600):
        wanted = sandbox._ALLOW if number in listed | checked else sandbox._REFUSE
        assert verdict(program, number=number, arch=arch) == wanted, number
        assert verdict(program, number=number, arch=arch + 1) == sandbox._KILL
        assert verdict(program, number=number | 1 << 30, arch=arch) == sandbox._REFUSE
    for number in checked:
        assert verdict(program, number=number, arch=arch, third=sandbox._PROT_EXEC | 1) == sandbox._REFUSE
    assert verdict(program, number=fcntl, arch=arch, second=sandbox._F_DUPFD_CLOEXEC) == sandbox._ALLOW


def verdict(program: bytes, *, number: int, arch: int, second: int = 0, third: int = 0) -> int:
    """What a filter of loads, two kinds of jumps and returns answers to a call."""
    words = {0: number, 4: arch, 24: second, 32: third}
    lines = list(struct.iter_unpack("<HBBI", program))
    at = loaded = 0
    while True:
        code, if_true, if_false, operand = lines[at]
        at += 1
        if code == sandbox._RETURN:
            return int(operand)
        if code == sandbox._LOAD_WORD:
            loaded = words[operand]
        else:
            holds = loaded == operand if code == sandbox._JUMP_IF_EQUAL else bool(loaded & operand)
            at += if_true if holds else if_false
