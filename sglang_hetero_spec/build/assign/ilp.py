"""The best choice with tasks apart, as an integer program for scipy's HiGHS: a facility location problem."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, milp

from sglang_hetero_spec.build.assign.problem import Problem

# HiGHS stops within 1e-6 of the optimum, absolute, and scipy cannot tell it otherwise: larger costs, smaller gap.
_SCALE = 1e4


def integer_program(problem: Problem) -> tuple[int, ...]:
    """The choice of least `seconds_apart`.

    Variables: x[t, k], task t is served by candidate k (not more than k is open), and y[k], candidate k is open.
    The solver holds limits within a tolerance only: a set that is above them is forbidden and the program solved
    again.
    """
    num_tasks, num_candidates = problem.apart.shape
    costs, usable = _costs(problem)
    rows, low, high = _constraints(problem)
    while True:
        result = milp(
            np.concatenate([costs.ravel(), np.zeros(num_candidates)]),
            integrality=np.concatenate([np.zeros(costs.size), np.ones(num_candidates)]),
            bounds=Bounds(0, np.concatenate([usable.ravel().astype(float), np.ones(num_candidates)])),
            constraints=LinearConstraint(sp.vstack(rows, format="csr"), np.concatenate(low), np.concatenate(high)),
            options={"mip_rel_gap": 0.0},
        )
        if not result.success:
            raise RuntimeError(f"the solver gave up: {result.message}")
        chosen = [k for k in range(1, num_candidates) if result.x[num_tasks * num_candidates + k] > 0.5]
        if problem.fits(chosen):
            return problem.best_apart(chosen)[0]
        rows.append(_row(problem, {k: 1.0 for k in chosen}))
        low.append([-np.inf])
        high.append([len(chosen) - 1.0])


def _costs(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Costs that are about `_SCALE` in all, [T, K], and which pairs were measured."""
    usable = np.isfinite(problem.costs.apart)
    weighted = np.where(usable, problem.apart, 0.0)
    return weighted * (_SCALE / weighted[:, 0].sum()), usable


def _constraints(problem: Problem) -> tuple[list[sp.csr_array], list[list[float]], list[list[float]]]:
    num_tasks, num_candidates = problem.apart.shape
    each_task = sp.kron(sp.eye_array(num_tasks), np.ones((1, num_candidates)))
    served = sp.hstack([each_task, sp.csr_array((num_tasks, num_candidates))])
    opened = sp.kron(np.ones((num_tasks, 1)), -sp.eye_array(num_candidates))
    served_by_open = sp.hstack([sp.eye_array(num_tasks * num_candidates), opened])
    rows, low, high = [served, served_by_open], [[1.0] * num_tasks], [[1.0] * num_tasks]
    low.append([-np.inf] * served_by_open.shape[0])
    high.append([0.0] * served_by_open.shape[0])
    for coefficients, limit in _limits(problem):
        rows.append(_row(problem, coefficients))
        low.append([-np.inf])
        high.append([limit])
    return rows, low, high


def _limits(problem: Problem) -> list[tuple[dict[int, float], float]]:
    real = range(1, len(problem.candidates))
    limits = [({k: 1.0 for k in real if problem.drafter[k] == drafter}, 1.0) for drafter in set(problem.drafter) - {0}]
    if problem.budget.max_drafters is not None:
        limits.append((dict.fromkeys(real, 1.0), float(problem.budget.max_drafters)))
    if problem.budget.max_memory is not None:
        scale = max(1, problem.budget.max_memory)
        limits.append(({k: problem.memory[k] / scale for k in real}, problem.budget.max_memory / scale))
    return [limit for limit in limits if limit[0]]


def _row(problem: Problem, coefficients: dict[int, float]) -> sp.csr_array:
    num_tasks, num_candidates = problem.apart.shape
    columns = [num_tasks * num_candidates + k for k in coefficients]
    values = list(coefficients.values())
    return sp.csr_array((values, ([0] * len(columns), columns)), shape=(1, (num_tasks + 1) * num_candidates))
