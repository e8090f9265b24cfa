"""Becomes another program that cannot outlive the process that started it.

Run as a script, by path: `python -I -S leash.py PARENT_PID DEATH_SIGNAL UID:GID|- COMMAND…`. A program of its own, and
no `preexec_fn`, because Python code between fork and exec is not safe in a parent that runs threads. It imports
nothing but the standard library and is gone as soon as COMMAND runs.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
EXIT_PARENT_GONE = 125


def main(argv: list[str]) -> None:
    parent_pid, death_signal, account, command = int(argv[1]), int(argv[2]), argv[3], argv[4:]
    if account != "-":
        uid, gid = (int(part) for part in account.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user, which clears the setting.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
            sys.exit(f"cannot tie this process to its parent: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:
        # It died before the leash was on: nobody would ever stop us.
        sys.exit(EXIT_PARENT_GONE)
    os.execvp(command[0], command)  # noqa: S606 - becoming the command is the purpose


if __name__ == "__main__":
    main(sys.argv)
