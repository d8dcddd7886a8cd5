"""Of all benchmarks."""

from __future__ import annotations


def pytest_xdist_auto_num_workers() -> int:
    """In this process: pytest-benchmark measures nothing in workers."""
    return 0
