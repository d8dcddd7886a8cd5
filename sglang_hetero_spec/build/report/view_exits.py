"""Sorted drafters: on which tasks leaving by confidence pays, beside the best of the drafter's fixed exits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sglang_hetero_spec.build.report.matrix import Matrix, MatrixCell

# As `profile` names them: name-exit4 is always left behind layer 4, name-at2 by thresholds chosen for 2 in flight.
_FIXED, _ADAPTIVE = re.compile(r"(.+)-exit(\d+)"), re.compile(r"(.+)-at(\d+)")


@dataclass(frozen=True)
class ExitRow:
    """One task. fixed, adaptive: the fastest of each; ratio: tokens per second of the second over the first."""

    task: str
    fixed: str
    fixed_cell: MatrixCell
    adaptive: str
    adaptive_cell: MatrixCell

    @property
    def ratio(self) -> float:
        return self.adaptive_cell.tokens_per_second / self.fixed_cell.tokens_per_second

    @property
    def pays(self) -> bool:
        return self.ratio > 1


@dataclass(frozen=True)
class ExitsView:
    """One sorted drafter on every task where both were measured."""

    drafter: str
    rows: tuple[ExitRow, ...]


def exits_views(matrix: Matrix | None) -> tuple[ExitsView, ...]:
    if matrix is None:
        return ()
    fixed, adaptive = _families(matrix, _FIXED), _families(matrix, _ADAPTIVE)
    found = []
    for drafter in fixed.keys() & adaptive.keys():
        rows = []
        for place, task in enumerate(matrix.tasks):
            one, other = _fastest(fixed[drafter], place), _fastest(adaptive[drafter], place)
            if one is not None and other is not None:
                rows.append(ExitRow(task, *one, *other))
        found.append(ExitsView(drafter, tuple(rows)))
    return tuple(sorted((view for view in found if view.rows), key=lambda view: view.drafter))


_Cells = Sequence[MatrixCell | None]


def _families(matrix: Matrix, names: re.Pattern[str]) -> Mapping[str, dict[str, _Cells]]:
    """Rows of the matrix by the drafter that they are variants of, and by their own name."""
    found: dict[str, dict[str, _Cells]] = {}
    for row in matrix.rows:
        match = names.fullmatch(row.candidate.drafter)
        if match:
            found.setdefault(match[1], {})[row.candidate.drafter] = row.cells
    return found


def _fastest(variants: Mapping[str, _Cells], place: int) -> tuple[str, MatrixCell] | None:
    known = [(name, cell) for name, cells in variants.items() if (cell := cells[place]) is not None]
    return max(known, key=lambda pair: pair[1].tokens_per_second, default=None)
