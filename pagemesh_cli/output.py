"""What the command prints: results on stdout, everything else on stderr."""

import json
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from pagemesh_cli.failures import Failure

_PIPE_WIDTH = 200
# Of what is not printable, these steer nothing and are common in documents: spaces of all widths, soft hyphens,
# joiners, and the private use of symbol fonts.
_HARMLESS_KINDS = ("Zs", "Co")
_HARMLESS = "\n\t\f\u00ad\u200b\u200c\u200d\u2060\ufeff"


class OutputLost(Exception):
    """Nothing can be written any more: nobody reads, or there is no room."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Output:
    """`as_json`: stdout carries JSON and nothing else, one object a line. `quiet`: no notes and no progress."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        # A table that goes into a file or a pipe must not be folded to the width of a terminal that is not there.
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
        self.errors = Console(stderr=True, highlight=False)

    def print(self, thing: RenderableType, *, soft_wrap: bool = False) -> None:
        """A table or a styled line, on stdout."""
        try:
            self.console.print(thing, soft_wrap=soft_wrap)
        except OSError as error:
            raise OutputLost(error) from error

    def write(self, text: str) -> None:
        """Plain text, neither marked up nor wrapped; on a terminal, without anything that the terminal would obey."""
        self._put(printable(text) if sys.stdout.isatty() else text)

    def result(self, value: Any) -> None:
        """One JSON object on stdout."""
        self._put(json_text(value) + "\n")

    def _put(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError as error:
            raise OutputLost(error) from error

    def write_bytes(self, data: bytes) -> None:
        """What is no text, on a stdout that is no terminal."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise OutputLost(error) from error

    def note(self, text: str, style: str = "") -> None:
        """Something about the work, not its result. Not said where a machine listens."""
        if not self.as_json and not self.quiet:
            self._say(Text(printable(text), style=style))

    def warn(self, text: str) -> None:
        """Something that did not fail the command, on stderr: as JSON where stdout is JSON too."""
        if self.as_json:
            sys.stderr.write(json_text({"warning": text}) + "\n")
            return
        self._say(Text(printable(f"warning: {text}"), style="yellow"))

    def failure(self, failure: Failure) -> None:
        """Tells on stderr what went wrong and what to do: as JSON where stdout is JSON too."""
        if self.as_json:
            sys.stderr.write(json_text(failure.as_json()) + "\n")
            return
        self._say(Text(printable(f"{failure.reason}: {failure.message}"), style="bold red"))
        for name, description in failure.fields.items():
            line = f"field {name}" if description == failure.message else f"{name}: {description}"
            if line not in failure.message:
                self._say(Text(printable(f"  {line}")))
        if failure.advice:
            self._say(Text(printable(f"  {failure.advice}")))
        if failure.request_id:
            self._say(Text(f"  request id {failure.request_id}", style="dim"))

    def _say(self, text: Text) -> None:
        # Soft: the terminal may break the line, and a file or a pipe gets it whole.
        self.errors.print(text, soft_wrap=True)

    def shows_progress(self, *, printing: bool) -> bool:
        """Whether a bar may be drawn: on a terminal, to which no results are `printing`, and for people."""
        wanted = not self.as_json and not self.quiet
        return wanted and self.errors.is_terminal and not (printing and sys.stdout.isatty())

    @contextmanager
    def progress(self, what: str, total: float | None = None, *, printing: bool = False) -> Iterator["Meter"]:
        """A bar on stderr while the block runs, where stderr is a terminal and nobody asked for JSON.

        `printing`: the block writes results; then there is no bar where they go to the same terminal.
        """
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        shown = self.shows_progress(printing=printing)
        with Progress(
            *columns,
            console=self.errors,
            transient=True,
            disable=not shown,
            # Rich would send what is written to stdout to the bar's own console, which is stderr.
            redirect_stdout=False,
            redirect_stderr=False,
        ) as progress:
            yield Meter(progress, progress.add_task(one_line(what), total=total))


class Meter:
    """How far a piece of work is."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress = progress
        self._task = task

    def at(self, done: float, total: float | None = None) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def advance(self, done: float) -> None:
        self._progress.advance(self._task, done)


def message_json(message: Message) -> dict[str, Any]:
    """The message as the HTTP API shows it: lowerCamelCase, every field, 64-bit integers as strings."""
    value: dict[str, Any] = MessageToDict(message, always_print_fields_with_no_presence=True)
    return value


def json_text(value: Any) -> str:
    """One line of JSON in which whatever a terminal may obey is an escape."""
    text = json.dumps(value, ensure_ascii=False)
    if _is_harmless(text):
        return text
    # Outside of its strings JSON has nothing but plain ASCII.
    return "".join(char if _is_harmless(char) else json.dumps(char)[1:-1] for char in text)


def printable(text: str) -> str:
    """The text without what steers a terminal, which a document must not; each character stays one character."""
    if _is_harmless(text):
        return text
    return "".join(char if _is_harmless(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def one_line(text: str) -> str:
    """The same without breaks and tabulators, for names and cells."""
    return printable(text).translate(_BREAKS)


_BREAKS = {ord(char): " " for char in "\n\t\f"}


def _is_harmless(text: str) -> bool:
    if text.isprintable():
        return True
    return all(
        char.isprintable() or char in _HARMLESS or unicodedata.category(char) in _HARMLESS_KINDS for char in text
    )
