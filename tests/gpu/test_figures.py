"""The figures that HETERO is to reach on a GPU, as ratios within one run, by the steps of benchmarks/gpu_run.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.gpu_context import Context, Scale
from benchmarks.gpu_models import TARGETS
from benchmarks.gpu_run import line_of
from benchmarks.gpu_steps import STEPS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    out: Path = tmp_path_factory.mktemp("gpu") / "out"
    out.mkdir()
    made = Context(out, Scale(TARGETS["medium"]))
    yield made
    made.close()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_reaches_what_it_wants(step, context: Context) -> None:
    context.deadline = time.monotonic() + 3 * step.seconds
    rows = list(step.run(context))
    assert rows
    missed = [row for row in rows if row.wanted is not None and row.value < row.wanted]
    assert missed == [], "\n".join(map(line_of, rows))
