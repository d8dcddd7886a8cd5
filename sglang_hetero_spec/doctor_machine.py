"""What this machine has: memory, cores, CPU features; without psutil, None where the system does not tell."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that can be had without swapping, within this container's limit."""
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
            limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
            return free if limit is None or used is None else min(free, max(limit - used, 0))
    return None


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_flags() -> frozenset[str] | None:
    """The CPU's feature flags as Linux names them."""
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None
