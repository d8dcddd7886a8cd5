"""The best choice for tasks mixed in one batch: branch and bound, the tasks apart being the bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from sglang_hetero_spec.build.assign.enumerate import enumerated, num_sets
from sglang_hetero_spec.build.assign.ilp import integer_program
from sglang_hetero_spec.build.assign.problem import Problem
from sglang_hetero_spec.build.profile.mixed import mixed_seconds_per_token

MAX_SETS = 5_000  # below, looking at every set is quicker than the solver
MAX_CHOICES = 2_000_000  # half a minute
_BATCH = 2048
_TIE = 1e-12


@dataclass(frozen=True)
class Solution:
    """choice: the candidate of each task; seconds: per token of the mix; bound: no choice can take fewer."""

    choice: tuple[int, ...]
    seconds: float
    bound: float
    method: str

    @property
    def proven(self) -> bool:
        return self.seconds <= self.bound * (1 + 1e-9)


def best_apart(problem: Problem) -> tuple[tuple[int, ...], str]:
    """The best choice if every task ran alone, and how it was found."""
    if num_sets(problem) <= MAX_SETS:
        return enumerated(problem), "enumeration"
    return integer_program(problem), "integer program"


def solve(problem: Problem, max_choices: int = MAX_CHOICES) -> Solution:
    """The choice of most tokens per second of the mix.

    With one request in flight that is the best choice apart. Otherwise choices are looked at in the order of tasks, and
    given up where even apart they are slower than the best found. After `max_choices` the best so far is
    returned with the bound that is proven then; of equals the one of fewer drafters wins.
    """
    apart, method = best_apart(problem)
    bound = problem.seconds_apart(apart)
    best, seconds = _best_of(problem, _starts(problem, apart))
    best, seconds = _improved(problem, best, seconds)
    search = _Search(problem, seconds)
    if problem.costs.concurrency > 1 or problem.costs.fixed_width:
        method = "branch and bound"
        choices = search.choices()
        seen = 0
        while batch := list(islice(choices, _BATCH)):
            seen += len(batch)
            found, found_seconds = _best_of(problem, batch)
            if found_seconds < seconds * (1 - _TIE):
                best, seconds = found, found_seconds
                search.limit = seconds
            if seen >= max_choices:
                return Solution(best, seconds, bound, f"{method}, cut off after {seen} choices")
    return Solution(best, seconds, seconds, method)


def _best_of(problem: Problem, choices: list[tuple[int, ...]]) -> tuple[tuple[int, ...], float]:
    """The quickest; within rounding the one of fewest drafters, then the first."""
    seconds = mixed_seconds_per_token(problem.costs, np.array(choices))
    level = seconds.min() * (1 + _TIE)
    ties = [choice for choice, value in zip(choices, seconds, strict=True) if value <= level]
    best = min(ties, key=lambda choice: len(set(choice) - {0}))
    return best, problem.seconds_mixed(best)


def _starts(problem: Problem, apart: tuple[int, ...]) -> list[tuple[int, ...]]:
    singles = (problem.single(k) for k in range(len(problem.candidates)) if problem.fits((k,)))
    return [*(choice for choice in singles if choice is not None), apart]


def _improved(problem: Problem, best: tuple[int, ...], seconds: float) -> tuple[tuple[int, ...], float]:
    """Local search, so that the bound bites early: one task, or all tasks of one candidate, given to another."""
    usable = np.isfinite(problem.costs.apart)
    while True:
        moves = [
            move
            for k in range(len(problem.candidates))
            for move in _moves(best, k)
            if all(usable[t, c] for t, c in enumerate(move)) and problem.fits(move)
        ]
        if not moves:
            return best, seconds
        found, found_seconds = _best_of(problem, moves)
        if found_seconds >= seconds * (1 - _TIE):
            return best, seconds
        best, seconds = found, found_seconds


def _moves(choice: tuple[int, ...], candidate: int) -> Iterator[tuple[int, ...]]:
    for task in range(len(choice)):
        yield (*choice[:task], candidate, *choice[task + 1 :])
    for old in set(choice) - {candidate}:
        yield tuple(candidate if c == old else c for c in choice)


class _Search:
    """Every choice that fits and takes fewer seconds apart than `limit`, which may be lowered on the way."""

    def __init__(self, problem: Problem, limit: float) -> None:
        self.limit = limit
        self._problem = problem
        self._apart = problem.apart
        self._order = np.argsort(-np.where(np.isfinite(self._apart), self._apart, 0).max(axis=1), kind="stable")
        cheapest = self._apart[self._order].min(axis=1)
        self._rest = np.append(np.cumsum(cheapest[::-1])[::-1], 0.0)
        self._ranked = [self._ranking(task) for task in self._order]

    def _ranking(self, task: int) -> list[int]:
        """Cheapest first; a task without weight is all the same to the search (`assignment.py` sees to it)."""
        if self._problem.costs.weights[task] == 0:
            return [0]
        return np.argsort(self._apart[task], kind="stable").tolist()

    def choices(self) -> Iterator[tuple[int, ...]]:
        yield from self._extend([0] * len(self._order), 0, 0.0, ())

    def _extend(
        self, choice: list[int], depth: int, seconds: float, used: tuple[int, ...]
    ) -> Iterator[tuple[int, ...]]:
        if depth == len(self._order):
            yield tuple(choice)
            return
        task = int(self._order[depth])
        for candidate in self._ranked[depth]:
            so_far = seconds + self._apart[task, candidate]
            if not so_far + self._rest[depth + 1] < self.limit * (1 - _TIE):
                return
            if candidate == 0 or candidate in used:
                now = used
            else:
                now = (*used, candidate)
                if not self._problem.fits(now):
                    continue
            choice[task] = candidate
            yield from self._extend(choice, depth + 1, so_far, now)
