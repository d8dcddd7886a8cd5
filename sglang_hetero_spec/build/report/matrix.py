"""Every drafter on every task: accept length and speed, from the raw counts of the profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sglang_hetero_spec.build.assign.result import Assignment
from sglang_hetero_spec.build.profile.model import NO_DRAFTER, Candidate, Cell, SpeedModel, shorter_chains
from sglang_hetero_spec.build.profile.records import ProfileRecord


@dataclass(frozen=True)
class MatrixCell:
    """accept_length: completion tokens / verify steps. gain: tokens per second, as a ratio to `none` on this task."""

    task: str
    accept_length: float
    tokens_per_second: float
    gain: float
    correct_rates: tuple[float, ...]
    is_assigned: bool


@dataclass(frozen=True)
class MatrixRow:
    """One drafter with one of its settings; a cell is None where it was not measured."""

    candidate: Candidate
    is_chosen: bool
    cells: tuple[MatrixCell | None, ...]


@dataclass(frozen=True)
class Matrix:
    """Each drafter once, with its chosen settings, or else those that serve it best."""

    concurrency: int
    tasks: tuple[str, ...]
    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True)
class Dismissed:
    """A drafter that serves no task: on which it came nearest to what serves it, both in tokens per second."""

    candidate: Candidate
    task: str
    tokens_per_second: float
    chosen: Candidate
    chosen_tokens_per_second: float

    @property
    def is_slower(self) -> bool:
        return self.tokens_per_second <= self.chosen_tokens_per_second


class Profiled:
    """The profile's model with the assignment made from it; ProfileError where `none` was not measured."""

    def __init__(
        self, records: Sequence[ProfileRecord], assignment: Assignment | None, tasks: Sequence[str] | None = None
    ) -> None:
        self._assignment = assignment
        chosen = {item.candidate for item in assignment.drafters} if assignment else set()
        derived = [item for item in shorter_chains(records) if Candidate(item.drafter, item.settings) in chosen]
        self._model = SpeedModel((*records, *derived))
        self._chosen = chosen
        order = [task for task in tasks or () if task in self._model.tasks]
        self._tasks = tuple(order or self._model.tasks)
        self.concurrency = assignment.concurrency if assignment else self._model.default_concurrency()

    def matrix(self) -> Matrix:
        rows = [self._row(candidate) for candidate in self._shown()]
        return Matrix(self.concurrency, self._tasks, tuple(rows))

    def dismissed(self) -> tuple[Dismissed, ...]:
        """Drafters that were profiled and not chosen; empty without an assignment."""
        if self._assignment is None:
            return ()
        served = {task.task: task.candidate for task in self._assignment.tasks}
        found = []
        for candidate in self._shown():
            if candidate in self._chosen or candidate == NO_DRAFTER:
                continue
            pairs = [
                (mine.tokens_per_second / theirs.tokens_per_second, task, mine, theirs)
                for task in self._tasks
                if task in served
                and (mine := self._cell(candidate, task)) is not None
                and (theirs := self._cell(served[task], task)) is not None
            ]
            if pairs:
                _, task, mine, theirs = max(pairs, key=lambda pair: pair[0])
                speeds = mine.tokens_per_second, theirs.tokens_per_second
                found.append(Dismissed(candidate, task, speeds[0], served[task], speeds[1]))
        return tuple(found)

    def _cell(self, candidate: Candidate, task: str) -> Cell | None:
        return self._model.cell(candidate, task, self.concurrency)

    def _row(self, candidate: Candidate) -> MatrixRow:
        cells = tuple(self._matrix_cell(candidate, task) for task in self._tasks)
        return MatrixRow(candidate, candidate in self._chosen, cells)

    def _matrix_cell(self, candidate: Candidate, task: str) -> MatrixCell | None:
        cell, none = self._cell(candidate, task), self._cell(NO_DRAFTER, task)
        if cell is None or none is None:
            return None
        served = {item.task: item.candidate for item in self._assignment.tasks} if self._assignment else {}
        return MatrixCell(
            task=task,
            accept_length=cell.accept_length,
            tokens_per_second=cell.tokens_per_second,
            gain=cell.tokens_per_second / none.tokens_per_second,
            correct_rates=cell.correct_rates,
            is_assigned=served.get(task) == candidate,
        )

    def _shown(self) -> list[Candidate]:
        """`none`, the chosen in the order of their tasks, then the others by name."""
        by_drafter: dict[str, list[Candidate]] = {}
        for candidate in self._model.candidates:
            by_drafter.setdefault(candidate.drafter, []).append(candidate)
        shown = [
            next((c for c in own if c in self._chosen), None) or max(own, key=self._worth)
            for own in by_drafter.values()
        ]
        first = {candidate: place for place, candidate in enumerate(self._in_task_order())}
        return sorted(shown, key=lambda c: (c != NO_DRAFTER, first.get(c, len(first)), c.drafter))

    def _in_task_order(self) -> list[Candidate]:
        if self._assignment is None:
            return []
        served = {item.task: item.candidate for item in self._assignment.tasks}
        return list(dict.fromkeys([*(served[task] for task in self._tasks if task in served), *self._chosen_sorted()]))

    def _chosen_sorted(self) -> list[Candidate]:
        return sorted(self._chosen, key=lambda candidate: candidate.drafter)

    def _worth(self, candidate: Candidate) -> float:
        """The sum of its gains over tasks."""
        cells = [self._matrix_cell(candidate, task) for task in self._tasks]
        return sum(cell.gain for cell in cells if cell is not None)
