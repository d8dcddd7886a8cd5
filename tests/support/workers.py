"""How the tests are shared out among pytest-xdist's workers: a folder's tests stay together, for they share engines."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Cores are what engines need, and about 2.5 GB each; a folder has up to three.
MOST_WORKERS = 2
# The longest first, and beside it what starts no engine; then the other engines. All others, which are short, follow in
# the order of their names.
FIRST = ("engine", "worker", "build", "build/align", "drafters", "vocab", "demo_data", "cpu")
FIRST += ("server", "engine_sampling", "demo_run", "lora", "build/regenerate")


class ByFolder(LoadScopeScheduling):
    """Folders in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return folder_of(nodeid)


def folder_of(nodeid: str) -> str:
    """Below tests/."""
    path = PurePosixPath(nodeid.partition("::")[0])
    return str(PurePosixPath(*path.parent.parts[1:]))


def longest_first(items: list[pytest.Item]) -> None:
    """In place; the order of all others, and within a folder, stays."""
    place = {folder: number for number, folder in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(folder_of(item.nodeid), len(place)))


def num_workers(arguments: list[str]) -> int:
    """0, which is this process, for a single file or test."""
    if len(arguments) == 1 and ".py" in arguments[0]:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, cores)
