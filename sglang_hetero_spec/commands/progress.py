"""What is going on, on stderr: a bar with an estimate on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from sglang_hetero_spec.commands.output import say

if TYPE_CHECKING:
    from rich.progress import Progress


LINE_SECONDS = 15.0  # between lines where there is no terminal


class Reporter:
    """Lines with the time since the start, and one bar at a time."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Reporter:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
                       BarColumn(bar_width=30), TextColumn("{task.fields[note]}"))  # fmt: skip
            console = Console(stderr=True, highlight=False)
            self._bar = Progress(*columns, console=console, transient=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def line(self, text: str) -> None:
        """A step that is done or begins."""
        text = f"[{self.seconds:4.0f} s] {text}"
        if self._bar is None:
            say(text)
        else:
            self._bar.console.print(text, markup=False)

    @contextlib.contextmanager
    def steps(self, text: str, total: int) -> Iterator[Steps]:
        """A bar of `total` steps; without a terminal, a line now and then."""
        steps = Steps(self, text, total, self._bar)
        try:
            yield steps
        finally:
            steps.close()


class Steps:
    """Counts steps. What is left is estimated from the time between `resume` and the last step."""

    def __init__(self, reporter: Reporter, text: str, total: int, bar: Progress | None) -> None:
        self._reporter, self._text, self._total, self._bar = reporter, text, total, bar
        self._done = 0
        self._spent = 0.0
        self._last = self._said = time.monotonic()
        self._task = None if bar is None else bar.add_task(text, total=total, note="")

    def resume(self) -> None:
        """Steps go on from now: the time since the last one was spent otherwise."""
        self._last = time.monotonic()

    def advance(self, note: str) -> None:
        now = time.monotonic()
        self._spent += now - self._last
        self._last = now
        self._done += 1
        left = self._spent / self._done * (self._total - self._done)
        note = f"{self._done}/{self._total}, {note}, about {left:.0f} s left"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, note=note)
        elif now - self._said > LINE_SECONDS or self._done == self._total:
            self._said = now
            self._reporter.line(f"{self._text}: {note}")

    def close(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
