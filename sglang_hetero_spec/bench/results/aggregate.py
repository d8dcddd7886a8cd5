"""From the records of a run to all of its figures. The same files give the same figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.bench.records import BlockRecord, RequestRecord
from sglang_hetero_spec.bench.results import estimate
from sglang_hetero_spec.bench.results.bootstrap import LEVEL, RESAMPLES
from sglang_hetero_spec.bench.results.columns import Columns, columns
from sglang_hetero_spec.bench.results.definitions import DEFINITIONS
from sglang_hetero_spec.bench.results.identical import Wanted, reference, sameness
from sglang_hetero_spec.bench.results.run_files import Run
from sglang_hetero_spec.bench.results.steps import draft_share_of, step_figures
from sglang_hetero_spec.bench.results.tally import QUOTIENTS, figures, server_ratio, server_speed

AGGREGATE_FORMAT, AGGREGATE_VERSION = "sglang_hetero_spec.bench.aggregate", 1
BASES = ("standalone", "standalone-best", "hetero-oracle")  # beside the baseline
RATIOS = ("request_tokens_per_second", "accept_length")


@dataclass(frozen=True)
class Cell:
    """One arm in one setting."""

    arm: str
    rows: Columns
    blocks: tuple[BlockRecord, ...]


def aggregate(run: Run) -> dict[str, Any]:
    """All figures, as documented in bench/results/__init__.py, but for citable, why_not and speed_model."""
    return {
        "format": AGGREGATE_FORMAT,
        "schema_version": AGGREGATE_VERSION,
        "records": run.sha256,
        "intervals": {"level": LEVEL, "resamples": RESAMPLES, "seed": run.seed},
        "definitions": {name: item.as_dict() for name, item in DEFINITIONS.items()},
        "baseline": run.baseline,
        "arms": list(run.arms),
        "tasks": list(run.tasks),
        "settings": {setting: _setting(run, setting) for setting in run.settings},
        "identical": _identical(run),
        "differences": None if run.differences is None else len(run.differences),
    }


def _setting(run: Run, setting: str) -> dict[str, Any]:
    cells = [cell for arm in run.arms if (cell := _cell(run, arm, setting))]
    wanted = reference(run.requests, run.baseline)
    by_arm = {cell.arm: cell for cell in cells}
    bases = [by_arm[name] for name in dict.fromkeys((run.baseline, *BASES)) if name in by_arm]
    return {
        "arms": {cell.arm: _arm(run, cell, wanted) for cell in cells},
        "ratios": {
            f"{cell.arm}/{base.arm}": _ratios(run, cell, base)
            for base in bases
            for cell in cells
            if cell.arm != base.arm
        },
    }


def _cell(run: Run, arm: str, setting: str) -> Cell | None:
    """None where no request is on record."""
    requests = [row for row in run.requests if row.arm == arm and row.setting == setting]
    blocks = [one for one in run.blocks if one.arm == arm and one.setting == setting]
    if not requests:
        return None
    return Cell(arm, columns(requests), tuple(sorted(blocks, key=lambda one: one.repetition)))


def _arm(run: Run, cell: Cell, wanted: Wanted) -> dict[str, Any]:
    """Figures over all requests, of each task, and of each drafter."""
    served = [row.drafter for row in cell.rows.records if row.drafter is not None]
    speed = server_speed(cell.rows, cell.blocks).as_dict()
    return {
        "all": _group(run, cell.rows, wanted) | {"server_tokens_per_second": speed} | step_figures(cell.blocks),
        "tasks": {task: _group(run, rows, wanted) for task, rows in _by_task(cell.rows, run.tasks)},
        "drafters": {
            name: _group(run, cell.rows.where(lambda row, name=name: row.drafter == name), wanted)
            | {"draft_seconds_share": draft_share_of(name, cell.blocks)}
            for name in sorted(set(served))
        },
    }


def _group(run: Run, rows: Columns, wanted: Wanted) -> dict[str, Any]:
    found = figures(rows, run.seed) | {"identical": sameness(rows.records, wanted, run.temperature)}
    return found | {"routes": routes(rows.records)}


def routes(records: Iterable[RequestRecord]) -> dict[str, int]:
    """Requests by the drafter that served them."""
    names = [row.drafter for row in records if row.drafter is not None]
    return {name: names.count(name) for name in sorted(set(names))}


def _ratios(run: Run, cell: Cell, base: Cell) -> dict[str, Any]:
    server = server_ratio(cell.rows, base.rows, (cell.blocks, base.blocks)).as_dict()
    theirs = dict(_by_task(base.rows, run.tasks))
    return {
        "all": _paired(cell.rows, base.rows, run.seed) | {"server_tokens_per_second": server},
        "tasks": {
            task: _paired(rows, theirs[task], run.seed)
            for task, rows in _by_task(cell.rows, run.tasks)
            if task in theirs
        },
    }


def _paired(ours: Columns, theirs: Columns, seed: int) -> dict[str, Any]:
    return {name: estimate.ratio_of_sums(ours, theirs, *QUOTIENTS[name], seed).as_dict() for name in RATIOS}


def _by_task(rows: Columns, tasks: Sequence[str]) -> list[tuple[str, Columns]]:
    """Of the tasks that have requests."""
    found = [(task, rows.where(lambda row, task=task: row.task == task)) for task in tasks]
    return [(task, part) for task, part in found if len(part)]


def _identical(run: Run) -> dict[str, Any]:
    """Of each arm over all settings."""
    wanted = reference(run.requests, run.baseline)
    return {arm: sameness((row for row in run.requests if row.arm == arm), wanted, run.temperature) for arm in run.arms}
