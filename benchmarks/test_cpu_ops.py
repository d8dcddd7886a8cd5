"""CPU ops beside the loop over requests that each stands in for, and beside plain Python where that ends in time.

    pytest benchmarks/test_cpu_ops.py     # ratios of calls in turn: python -m benchmarks.cpu_ratios

That the forms agree is tested in tests/benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.cpu_ops import CASES, Case
from tests.support.threads import one_thread

LENGTH = 128


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.mark.parametrize("way", ["ours", "loop", "reference"])
@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cpu_op(benchmark, case: Case, size: int, way: str) -> None:  # type: ignore[no-untyped-def]
    """One call of the op (attention: four layers), 64 to 128 committed tokens per request, one thread."""
    if way == "reference" and size > 1:
        pytest.skip("plain Python is timed for one request only")
    form = getattr(case.make(size, LENGTH), way)
    if form is None:
        pytest.skip("no plain Python form of this op, or one that takes too long")
    benchmark.group = f"{case.name}, {size} request{'s' if size > 1 else ''}"
    with torch.inference_mode():
        benchmark(form)
