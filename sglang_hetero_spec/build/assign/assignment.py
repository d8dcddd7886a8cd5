"""`assign`: from the records of a profile to assignment.json: which drafter serves which task, and what that gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sglang_hetero_spec.build.assign.problem import AssignError, Budget, Problem, build_problem
from sglang_hetero_spec.build.assign.result import (
    AssignedDrafter,
    AssignedTask,
    Assignment,
    BestSingle,
    BudgetSpec,
    Expected,
)
from sglang_hetero_spec.build.assign.search import Solution, solve
from sglang_hetero_spec.build.profile.model import Candidate, Cell, SpeedModel, shorter_chains
from sglang_hetero_spec.build.profile.records import ProfileRecord

__all__ = ["AssignError", "Assignment", "Budget", "assign"]


def assign(
    records: Sequence[ProfileRecord],
    *,
    traffic: Mapping[str, float] | None = None,
    max_drafters: int | None = None,
    max_memory: int | None = None,
    memory: Mapping[str, int] | None = None,
    concurrency: int | None = None,
    fixed_width: bool = False,
    derive_shorter: bool = False,
) -> Assignment:
    """The assignment of most expected tokens per second (see `build_problem` for the arguments).

    derive_shorter: chains shorter than the measured ones are candidates too, predicted by `shorter_chains`.
    ProfileError or AssignError, in one sentence, where the records do not suffice.
    """
    derived = shorter_chains(records) if derive_shorter else ()
    model = SpeedModel((*records, *derived))
    problem = build_problem(
        model,
        concurrency=concurrency,
        traffic=traffic,
        memory=memory,
        budget=Budget(max_drafters, max_memory),
        fixed_width=fixed_width,
    )
    return _described(model, problem, solve(problem))


def _described(model: SpeedModel, problem: Problem, solution: Solution) -> Assignment:
    choice = _with_idle_tasks(problem, solution.choice)
    chosen = set(choice) | {0}
    fallback = _fallback(problem, chosen)
    used = tuple(sorted(chosen | {fallback}))
    single = _best_single(problem, range(len(problem.candidates)), fitting=True)
    none_seconds = problem.seconds_mixed(problem.single(0) or ())
    single_seconds = problem.seconds_mixed(problem.single(single) or ())
    return Assignment(
        concurrency=problem.costs.concurrency,
        traffic=dict(zip(problem.tasks, problem.costs.weights.tolist(), strict=True)),
        budget=BudgetSpec(max_drafters=problem.budget.max_drafters, max_memory=problem.budget.max_memory),
        drafters=tuple(_drafter(problem, choice, candidate) for candidate in used),
        tasks=tuple(_task(model, problem, choice, single, number) for number in range(len(choice))),
        fallback_drafter=problem.candidates[fallback].drafter,
        best_single=BestSingle.of(problem.candidates[single], 1 / single_seconds),
        expected=Expected.of(solution.seconds, none_seconds, single_seconds),
        bound_tokens_per_second=1 / solution.bound,
        proven=solution.proven,
        method=solution.method,
        left_out=tuple(
            f"{problem.candidates[k]} on {problem.tasks[t]}" for t, k in np.argwhere(np.isinf(problem.costs.apart))
        ),
    )


def _with_idle_tasks(problem: Problem, choice: tuple[int, ...]) -> tuple[int, ...]:
    """A task without traffic gets the best of what is chosen anyway."""
    weighted = {candidate for task, candidate in enumerate(choice) if problem.costs.weights[task] > 0}
    idle, _ = problem.best_apart(tuple(weighted))
    return tuple(c if problem.costs.weights[task] > 0 else idle[task] for task, c in enumerate(choice))


def _fallback(problem: Problem, chosen: set[int]) -> int:
    """Who serves prompts of no task: the candidate that alone serves the mix best, of all that the budget allows beside
    `chosen`. A drafter of one task seldom is."""
    return _best_single(problem, [k for k in range(len(problem.candidates)) if problem.fits((*chosen, k))])


def _best_single(problem: Problem, candidates: Sequence[int], fitting: bool = False) -> int:
    """The candidate that alone serves the mix best; `none` where nothing is better."""
    singles = [k for k in candidates if problem.single(k) is not None and (not fitting or problem.fits((k,)))]
    seconds = [problem.seconds_mixed((k,) * len(problem.tasks)) for k in singles]
    return singles[int(np.argmin(seconds))]


def _drafter(problem: Problem, choice: tuple[int, ...], candidate: int) -> AssignedDrafter:
    return AssignedDrafter(
        **_named(problem.candidates[candidate]),
        memory_bytes=problem.memory[candidate] if problem.budget.max_memory is not None else None,
        tasks=tuple(task for task, k in zip(problem.tasks, choice, strict=True) if k == candidate),
    )


def _task(model: SpeedModel, problem: Problem, choice: tuple[int, ...], single: int, number: int) -> AssignedTask:
    task = problem.tasks[number]
    cells = [_cell(model, problem, k, task) for k in (choice[number], 0, single)]
    expected = Expected.of(*(cell.seconds_per_token for cell in cells))
    return AssignedTask(
        task=task, **_named(problem.candidates[choice[number]]), accept_length=cells[0].accept_length, expected=expected
    )


def _cell(model: SpeedModel, problem: Problem, candidate: int, task: str) -> Cell:
    cell = model.cell(problem.candidates[candidate], task, problem.costs.concurrency)
    assert cell is not None
    return cell


def _named(candidate: Candidate) -> dict[str, object]:
    return {"drafter": candidate.drafter, **candidate.settings._asdict()}
