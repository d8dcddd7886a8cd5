"""How fast each task is served, expected and measured; a speedup is a ratio to serving without speculation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sglang_hetero_spec.build.assign.result import Assignment, Expected
from sglang_hetero_spec.build.profile.records import NONE
from sglang_hetero_spec.build.report.inputs import Inputs
from sglang_hetero_spec.build.report.measured import MeasuredRun

HETERO = "hetero"


@dataclass(frozen=True)
class Spread:
    """The quotient of the sums over all runs, and the quotients of the single runs."""

    value: float
    runs: tuple[float, ...]

    @property
    def low(self) -> float:
        return min(self.runs)

    @property
    def high(self) -> float:
        return max(self.runs)


@dataclass(frozen=True)
class Served:
    """One way of serving one task. Speeds in tokens per second; gains are ratios to `none`; None: not known."""

    series: str
    expected: float | None
    measured: Spread | None
    expected_gain: float | None
    measured_gain: Spread | None

    @property
    def error(self) -> float | None:
        """By how much more was measured than expected, as a share of the measured."""
        if self.expected is None or self.measured is None:
            return None
        return self.expected / self.measured.value - 1


@dataclass(frozen=True)
class TaskSpeeds:
    """All ways of serving one task; task None is the mixed workload."""

    task: str | None
    served: tuple[Served, ...]

    def of(self, series: str) -> Served | None:
        return next((item for item in self.served if item.series == series), None)


def task_speeds(inputs: Inputs) -> tuple[TaskSpeeds, ...]:
    """The mixed workload first, then the tasks in their order; only what is known of."""
    runs = inputs.measured or ()
    found = []
    for task in (None, *(task.id for task in inputs.tasks)):
        mine = [run for run in runs if run.task == task]
        expected = _expected(inputs.assignment, task) if _is_comparable(inputs) else {}
        predicted = {run.series: run.predicted_tokens_per_second for run in mine if run.predicted_tokens_per_second}
        speeds = expected | predicted
        series = dict.fromkeys([NONE, *speeds, *(run.series for run in mine)])
        ordered = sorted(series, key=lambda name: (name == HETERO) - (name == NONE))
        if speeds or mine:
            found.append(TaskSpeeds(task, tuple(_served(name, mine, speeds) for name in ordered)))
    return tuple(found)


def _is_comparable(inputs: Inputs) -> bool:
    """Whether the assignment's concurrency is the one that was measured."""
    if inputs.assignment is None:
        return False
    return not inputs.measured or inputs.measured[0].concurrency == inputs.assignment.concurrency


def _expected(assignment: Assignment | None, task: str | None) -> dict[str, float]:
    if assignment is None:
        return {}
    if task is None:
        expected: Expected | None = assignment.expected
    else:
        expected = next((item.expected for item in assignment.tasks if item.task == task), None)
    if expected is None:
        return {}
    speeds = {NONE: expected.none_tokens_per_second}
    if assignment.best_single.drafter != NONE:
        speeds[f"standalone {assignment.best_single.drafter}"] = expected.best_single_tokens_per_second
    return speeds | {HETERO: expected.tokens_per_second}


def _served(series: str, runs: Sequence[MeasuredRun], expected: dict[str, float]) -> Served:
    none = {run.run: run for run in runs if run.series == NONE}
    mine = {run.run: run for run in runs if run.series == series}
    paired = sorted(mine.keys() & none.keys())
    gain = None
    if paired:
        ratios = tuple(_speed([mine[number]]) / _speed([none[number]]) for number in paired)
        whole = _speed([mine[number] for number in paired]) / _speed([none[number] for number in paired])
        gain = Spread(whole, ratios)
    known = series in expected and NONE in expected
    return Served(
        series=series,
        expected=expected.get(series),
        measured=Spread(_speed(list(mine.values())), tuple(_speed([run]) for run in mine.values())) if mine else None,
        expected_gain=expected[series] / expected[NONE] if known else None,
        measured_gain=gain,
    )


def _speed(runs: Sequence[MeasuredRun]) -> float:
    return sum(run.completion_tokens for run in runs) / sum(run.seconds for run in runs)
