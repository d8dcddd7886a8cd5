"""The best choice with tasks apart, by looking at every set of drafters and settings that the budget allows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from math import comb

from sglang_hetero_spec.build.assign.problem import Problem


def num_sets(problem: Problem) -> int:
    """An upper bound of the sets that `enumerated` looks at."""
    options = _options(problem)
    most = max(map(len, options), default=0)
    return sum(comb(len(options), size) * most**size for size in range(_largest(problem, len(options)) + 1))


def enumerated(problem: Problem) -> tuple[int, ...]:
    """The choice of least `seconds_apart`; of equals the one of fewer drafters, then the first listed."""
    best, seconds = problem.best_apart(())
    for chosen in _sets(problem):
        choice, candidate_seconds = problem.best_apart(chosen)
        if candidate_seconds < seconds:
            best, seconds = choice, candidate_seconds
    return best


def _sets(problem: Problem) -> Iterator[tuple[int, ...]]:
    options = _options(problem)
    for size in range(1, _largest(problem, len(options)) + 1):
        for drafters in combinations(options, size):
            for chosen in product(*drafters):
                if problem.fits(chosen):
                    yield chosen


def _options(problem: Problem) -> list[list[int]]:
    """The candidates of each drafter."""
    found: dict[int, list[int]] = {}
    for candidate, drafter in enumerate(problem.drafter):
        if candidate != 0:
            found.setdefault(drafter, []).append(candidate)
    return list(found.values())


def _largest(problem: Problem, num_drafters: int) -> int:
    """More drafters than tasks are never of use."""
    limit = problem.budget.max_drafters
    return min(num_drafters, len(problem.tasks), num_drafters if limit is None else limit)
