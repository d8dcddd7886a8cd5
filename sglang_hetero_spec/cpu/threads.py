"""How many OpenMP threads a CPU engine should use, and a piece of work in it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_CGROUP_V2 = "/sys/fs/cgroup/cpu.max"
_CGROUP_V1_QUOTA = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
_CGROUP_V1_PERIOD = "/sys/fs/cgroup/cpu/cpu.cfs_period_us"

# Below this, waking sleeping threads (GOMP_SPINCOUNT=0) costs more than they save: a draft forward of 160k parameters
# for 3 requests took 0.62 ms on four threads and 0.30 ms on one. About 1 ms of one core.
_WORTH_WAKING = 3e7


@contextmanager
def threads_worth_waking(operations: float) -> Iterator[None]:
    """Run a piece of work of so many floating-point operations on one thread where more would only slow it down."""
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or operations >= _WORTH_WAKING:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def physical_cores() -> int:
    """Physical cores that this process may use: its affinity mask without hyper-threads, cut to the cgroup's quota."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), _cgroup_limit()))


def _siblings(cpu: int) -> str:
    text = _read(_TOPOLOGY.format(cpu))
    return text if text else f"cpu{cpu}"


def _cgroup_limit() -> int:
    """The container's CPU quota rounded up, or a huge number without one."""
    fields = _read(_CGROUP_V2).split() or [_read(_CGROUP_V1_QUOTA), _read(_CGROUP_V1_PERIOD)]
    if len(fields) == 2 and all(field.isdigit() for field in fields) and int(fields[1]) > 0:
        return max(1, math.ceil(int(fields[0]) / int(fields[1])))
    return 1 << 30


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
