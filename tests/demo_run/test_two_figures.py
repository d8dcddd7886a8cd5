"""The figures of the checkpoint that serves two targets: read back, shown, refused when damaged."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from sglang_hetero_spec.demo.errors import DemoError
from sglang_hetero_spec.demo.shipped import Shipped, find_shipped
from sglang_hetero_spec.demo.two_figures import FIGURES_NAME, OneTarget, TwoTargets, as_file, shipped_figures, two_table
from sglang_hetero_spec.pool import load_pool

ROW = OneTarget("larger", 99_500_000, (1, 2, 3), (0.75, 1.0), 8, 5.5, 60.0, 20.0, "exit1x4", 1.05, 0.01, 0.99, 0.02)
FIGURES = TwoTargets("both", "python -m x", (ROW,))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert shipped_figures(Shipped(tmp_path)) is None
    (tmp_path / FIGURES_NAME).write_text(json.dumps(as_file(FIGURES)))
    assert shipped_figures(Shipped(tmp_path)) == FIGURES


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "other", "schema_version": 1}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FIGURES_NAME).write_text(text)
    with pytest.raises(DemoError, match="is damaged; install the package again"):
        shipped_figures(Shipped(tmp_path))


def test_both_targets_are_shown() -> None:
    out = Console(width=140, record=True, file=io.StringIO())
    out.print(two_table(FIGURES))
    said = " ".join(out.export_text().split())
    assert "larger 100M 1 (0.75), 2 (1), 3 8 5.50 20.0 60.0 1.050 +- 0.010 0.990 +- 0.020" in said
    assert FIGURES.note().endswith("python -m x")


def test_shipped_figures_are_of_the_shipped_thresholds() -> None:
    shipped = find_shipped()
    figures = shipped_figures(shipped)
    served = [load_pool(pool).drafter("both") for pool in (shipped.pool, shipped.small_pool)]
    assert all(drafter.kind == "sorted" for drafter in served)
    if figures is None:
        pytest.skip("not measured yet: python -m benchmarks.two_targets --publish")
    for row, drafter in zip(figures.targets, served, strict=True):
        assert (row.exits, row.thresholds, row.num_steps) == (drafter.exits, drafter.thresholds, drafter.num_steps)
