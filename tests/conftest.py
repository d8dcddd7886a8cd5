"""Of all tests."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

# Before anything imports torch: workers on few cores are quickest with one thread each that does not wait by spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

from tests.support.figures import Figures
from tests.support.workers import ByFolder, longest_first, num_workers


def pytest_configure(config: pytest.Config) -> None:
    """A shell starts what runs in the background with Ctrl-C ignored, and children would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Figures())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return num_workers(config.args)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    return ByFolder(config, log)
