"""How the tests are shared out among pytest-xdist's workers: a folder's tests stay together, for they share engines."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Two engines at a time: cores are what they need, and about 2 GB each.
MOST_WORKERS = 2
# The longest first: what is left for the end should be short. The others follow in the order of their names.
LONGEST = ("engine", "build/regenerate", "engine_sampling", "server", "worker", "lora", "demo_run", "drafters", "cpu")


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
    place = {folder: number for number, folder in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(folder_of(item.nodeid), len(place)))


def num_workers(arguments: list[str]) -> int:
    """0, which is this process, for a single file or test."""
    if len(arguments) == 1 and ".py" in arguments[0]:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, cores)
