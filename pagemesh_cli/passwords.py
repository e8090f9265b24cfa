"""Passwords of encrypted documents: out of a file or from the terminal, never out of the command line."""

import getpass
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output

_ASKED_FOR = ("DOCUMENT_ENCRYPTED", "DOCUMENT_WRONG_PASSWORD")
_TRIES = 3
_LARGEST_FILE = 4096
_ADVICE = "Give its password with --password-file FILE, or - to read it from stdin."

Result = TypeVar("Result")


class Password:
    """The password of one document, as far as it is known."""

    def __init__(self, output: Output, file: str | None) -> None:
        """`file`: a path, or `-` for stdin; None: people are asked once it is needed. Raises Failure where it cannot be
        read."""
        self._output = output
        self._given = file is not None
        self._asked = 0
        self.value = "" if file is None else _read(file)

    def stream(self, events: Callable[[], Iterator[Result]]) -> Iterator[Result]:
        """The events; asked for anew with another password where the document asks for one before the first."""
        while True:
            begun = False
            try:
                for event in events():
                    begun = True
                    yield event
                return
            except Failure as failure:
                if begun or failure.reason not in _ASKED_FOR:
                    raise
                self._ask(failure)

    def _ask(self, failure: Failure) -> None:
        """Raises the failure where nobody can be asked, or was often enough."""
        failure.advice = _ADVICE
        if self._given or self._output.as_json or self._asked == _TRIES or not sys.stdin.isatty():
            raise failure
        self._asked += 1
        again = "That is not the password. Another: " if self._asked > 1 else "Password of the document: "
        try:
            self.value = getpass.getpass(again)
        except EOFError:
            raise failure from None


def _read(file: str) -> str:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_LARGEST_FILE)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(_LARGEST_FILE)
        return data.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        reason = error.strerror
    except UnicodeDecodeError:
        # Not with what Python says, which quotes the bytes.
        reason = "it is not UTF-8"
    raise Failure(f"Cannot read the password from {file}: {reason}.", ExitCode.USAGE, "BAD_PASSWORD_FILE")
