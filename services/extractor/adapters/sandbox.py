"""What a parser process gives up before it sees a file: everything but memory, its socket and what it is handed.

Limits hold on every Unix. On Linux the process also dies with its parent, and a seccomp filter leaves it the calls
that computing and its socket need: no open, no socket, no fork, no exec, no signal to others, no new executable
memory. See seccomp(2) and linux/filter.h for the constants.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

_LOAD_WORD = 0x20
_JUMP_IF_EQUAL = 0x15
_JUMP_IF_BITS = 0x45
_RETURN = 0x06
_NUMBER_AT, _ARCH_AT, _SECOND_ARGUMENT_AT, _THIRD_ARGUMENT_AT = 0, 4, 24, 32
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | 1  # SECCOMP_RET_ERRNO with EPERM
_KILL = 0x80000000
_PROT_EXEC = 4

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Numbers from asm/unistd_64.h and asm-generic/unistd.h, in that order; None where the machine has no such call.
_MAY = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, None),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "dup": (32, 23),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "ppoll": (271, 73),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "rseq": (334, 293),
}
_MAY_WITHOUT_EXEC = {"mmap": (9, 222), "mprotect": (10, 226)}
_FCNTL = (72, 25)
_F_DUPFD_CLOEXEC = 1030  # what mmap.mmap needs; F_SETOWN and F_SETSIG could signal other processes

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def limit(*, memory_bytes: int, open_files: int, cpu_s: int) -> None:
    """Caps the address space that may still be added and the CPU time of the process's whole life, and forbids core
    files and files that grow."""
    ceiling = _address_space_bytes() + memory_bytes
    for which, value in (
        (resource.RLIMIT_AS, ceiling),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, open_files),
    ):
        resource.setrlimit(which, (value, value))


def die_with(parent_pid: int) -> None:
    """Has the kernel kill this process when its parent ends; ends it now where that has happened already."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def forbid_system_calls() -> bool:
    """Installs the filter, for good. False where this system has none. Raises OSError where the kernel refuses."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _AUDIT_ARCH:
        return False
    instructions = _filter(machine)
    program = _Program(len(instructions) // 8, instructions)
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))
    return True


def _filter(machine: str) -> bytes:
    """Classic BPF: foreign architecture dies, listed calls pass, everything else answers EPERM."""
    column = list(_AUDIT_ARCH).index(machine)
    # On x86-64 the x32 calls carry bit 30 in their number, so they equal none of these and are refused.
    may = [numbers[column] for numbers in _MAY.values()]
    checked = [numbers[column] for numbers in _MAY_WITHOUT_EXEC.values()]
    lines = [
        (_LOAD_WORD, 0, 0, _ARCH_AT),
        (_JUMP_IF_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD_WORD, 0, 0, _NUMBER_AT),
    ]
    for number in may:
        if number is not None:
            lines += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number in checked:
        lines += [
            (_JUMP_IF_EQUAL, 0, 4, number),
            (_LOAD_WORD, 0, 0, _THIRD_ARGUMENT_AT),
            (_JUMP_IF_BITS, 0, 1, _PROT_EXEC),
            (_RETURN, 0, 0, _REFUSE),
            (_RETURN, 0, 0, _ALLOW),
        ]
    lines += [
        (_JUMP_IF_EQUAL, 0, 3, _FCNTL[column]),
        (_LOAD_WORD, 0, 0, _SECOND_ARGUMENT_AT),
        (_JUMP_IF_EQUAL, 0, 1, _F_DUPFD_CLOEXEC),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def _address_space_bytes() -> int:
    """Address space in use; on systems without /proc a guess that is large enough for the parser's libraries."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123  # pathlib is not worth it after a fork
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30


def _prctl(option: int, argument: int, pointer: int = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(pointer), 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
