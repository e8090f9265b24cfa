"""How far an extraction is, told on stderr: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pagemesh_cli.output import Output, OutputLost

_LINE_EVERY_S = 5.0


class PageProgress:
    """Counts pages. `printing`: they go to stdout, which may be the same terminal."""

    def __init__(
        self, output: Output, what: str, *, printing: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._output = output
        self._what = what
        self._clock = clock
        self._begun_s = self._told_s = clock()
        self._said = 0
        """Pages that were done when the last line was told."""
        self.total = 0
        self.done = 0
        self.failed = 0
        self.recognised = 0
        """Pages that were read by optical character recognition."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}", markup=False),
            TimeElapsedColumn(),
        )
        self._bar = Progress(
            *columns,
            console=output.errors,
            transient=True,
            disable=not output.shows_progress(printing=printing),
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task(what, total=None, told="")

    def __enter__(self) -> "PageProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        # A reader who had enough needs no words.
        if self.done > self._said and not isinstance(error, OutputLost):
            self._output.note(f"{self._what}: {self._state()}", "dim")

    def expect(self, pages: int) -> None:
        """So many more pages will come."""
        self.total += pages
        self._show()

    def page(self, *, failed: bool = False, recognised: bool = False) -> None:
        """One page came, or will not."""
        self.done += 1
        self.failed += failed
        self.recognised += recognised
        self._show()

    def _show(self) -> None:
        state = self._state()
        self._bar.update(self._task, completed=self.done, total=self.total or None, told=state)
        now_s = self._clock()
        if not self._output.errors.is_terminal and now_s - self._told_s >= _LINE_EVERY_S:
            self._told_s, self._said = now_s, self.done
            self._output.note(f"{self._what}: {state}", "dim")

    def _state(self) -> str:
        elapsed_s = max(self._clock() - self._begun_s, 0.001)
        of = f" of {self.total}" if self.total else ""
        parts = [f"{self.done}{of}", f"{self.done / elapsed_s:.3g} pages/s"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.recognised:
            parts.append(f"{self.recognised} by OCR")
        return ", ".join(parts)
