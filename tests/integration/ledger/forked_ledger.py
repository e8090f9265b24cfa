"""Ledgers that are there at once, for tests that kill hundreds: what a ledger loads is loaded once, and each is forked
off before anything has begun."""

import os
import signal
import subprocess
import sys

from pagemesh_cli.stack.process import ProcessId
from tests.integration.ledger.conftest import ROOT, LedgerProcess


class ForkedLedger(LedgerProcess):
    """A replica that starts within a tenth of a second. It is not waited for: callers try again until it answers."""

    _nest: "subprocess.Popen[str] | None" = None
    _id: ProcessId | None = None

    def open(self) -> None:
        with self._spec.log.open("ab") as log:
            self._nest = subprocess.Popen(
                (sys.executable, "-m", "tests.integration.ledger.forked_ledger"),
                cwd=ROOT,
                env=dict(self._spec.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def close(self) -> None:
        assert self._nest is not None
        self.kill()
        self._nest.communicate(timeout=60)

    def start(self) -> None:
        assert self._nest is not None
        assert self._nest.stdin is not None
        assert self._nest.stdout is not None
        assert self._id is None or self._id.wait_gone(30)
        self._nest.stdin.write("one more\n")
        self._nest.stdin.flush()
        self._id = ProcessId.of(int(self._nest.stdout.readline()))

    def kill(self) -> None:
        """As a crash, without waiting for the end."""
        if self._id is not None:
            self._id.kill()


def main() -> None:
    """A ledger for each line of the input, whose process id is written; all of them end with the input."""
    from services.ledger.__main__ import main as ledger  # not in the process of the tests

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(0)
            os.dup2(2, 1)
            sys.exit(ledger([]))
        print(pid, flush=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
