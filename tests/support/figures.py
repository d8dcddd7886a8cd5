"""What tests measured, printed below the results: also what the workers of pytest-xdist did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

_sources: list[Callable[[], list[str]]] = []
_of_workers: list[str] = []
KEY = "hetero_figures"


def print_at_the_end(lines: Callable[[], list[str]]) -> None:
    """lines: asked for once all tests are over."""
    _sources.append(lines)


class Figures:
    """A plugin of pytest."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)  # workers have one
        if output is not None:
            output[KEY] = _own()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        _of_workers.extend(getattr(node, "workeroutput", {}).get(KEY, []))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in [*_of_workers, *_own()]:
            terminalreporter.write_line(line)


def _own() -> list[str]:
    return [line for lines in _sources for line in lines()]
