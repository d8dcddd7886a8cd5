"""Merge tasks that one drafter serves about as well as the best of each would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.sparse

from sglang_hetero_spec.build.partition.errors import PartitionError


@dataclass(frozen=True)
class MergedTask:
    """Tasks that become one, in the order in which they were given, and the drafter that serves them."""

    tasks: tuple[str, ...]
    drafter: str


def merge_tasks(
    accept_lengths: Mapping[str, Mapping[str, float]],
    *,
    shares: Mapping[str, float] | None = None,
    tolerance: float = 0.02,
) -> tuple[MergedTask, ...]:
    """The fewest groups of tasks such that each group has one drafter that is good enough for all of it.

    `accept_lengths[task][drafter]` is the accept length (bonus included) on that task; every task names the same
    drafters. Good enough is within `tolerance` (relative) of the task's best. Of several ways with as few groups
    the one with the highest accept length is taken, tasks weighted by their `shares` of the traffic (default:
    alike). Exact, by an integer program; pure.

    >>> merge_tasks({"sql": {"a": 3.0, "b": 2.0}, "json": {"a": 2.99, "b": 3.0}, "math": {"a": 1.5, "b": 2.5}})
    (MergedTask(tasks=('sql',), drafter='a'), MergedTask(tasks=('json', 'math'), drafter='b'))
    """
    tasks = list(accept_lengths)
    drafters = _drafters(accept_lengths)
    lengths = np.array([[float(accept_lengths[task][drafter]) for drafter in drafters] for task in tasks])
    if not np.isfinite(lengths).all() or (lengths <= 0).any():
        raise PartitionError("an accept length is not a number above 0; measure the profile again.")
    if not 0 <= tolerance < 1:
        raise PartitionError(f"the tolerance {tolerance:g} is not in [0, 1); give a share such as 0.02.")
    weights = np.array([1.0 if shares is None else float(shares[task]) for task in tasks])
    chosen = _cover(lengths, weights, tolerance)
    groups: dict[int, list[str]] = {}
    for task, drafter in zip(tasks, chosen, strict=True):
        groups.setdefault(drafter, []).append(task)
    return tuple(MergedTask(tuple(group), drafters[drafter]) for drafter, group in groups.items())


def _drafters(accept_lengths: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = [list(row) for row in accept_lengths.values()]
    if not names or not names[0]:
        raise PartitionError("there is nothing to merge; give accept lengths of at least one task and one drafter.")
    for task, row in zip(accept_lengths, names, strict=True):
        if set(row) != set(names[0]):
            raise PartitionError(f"task `{task}` was not measured with every drafter; measure each on each task.")
    return names[0]


def _cover(lengths: np.ndarray, weights: np.ndarray, tolerance: float) -> list[int]:
    """The drafter (column) of each task (row): as few as can be, then the highest weighted sum."""
    num_tasks, num_drafters = lengths.shape
    best = lengths.max(axis=1, keepdims=True)
    good: Sequence[tuple[int, int]] = [
        (int(task), int(drafter)) for task, drafter in np.argwhere(lengths >= (1 - tolerance) * best)
    ]
    loss = weights[:, None] * (best - lengths) / best
    scale = 0.5 / max(float(loss.max()) * num_tasks, 1e-9)  # all losses together cost less than one drafter
    cost = np.concatenate([np.ones(num_drafters), [min(scale, 1e6) * loss[pair] for pair in good]])
    served = scipy.sparse.lil_matrix((num_tasks, len(cost)))
    opened = scipy.sparse.lil_matrix((len(good), len(cost)))
    for row, (task, drafter) in enumerate(good):
        served[task, num_drafters + row] = 1
        opened[row, num_drafters + row], opened[row, drafter] = 1, -1
    solved = scipy.optimize.milp(
        cost,
        integrality=np.ones(len(cost)),
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=[
            scipy.optimize.LinearConstraint(served.tocsr(), 1, 1),
            scipy.optimize.LinearConstraint(opened.tocsr(), -np.inf, 0),
        ],
    )
    if solved.x is None:  # each task has its own best: there is always a way
        raise RuntimeError(f"the integer program was not solved: {solved.message}")
    return [drafter for (task, drafter), used in zip(good, solved.x[num_drafters:] > 0.5, strict=True) if used]
