"""`second_below`: where the router is so unsure that two drafters pay, by the profile.

A prompt whose confidence is below it is drafted for by the drafters of the two likeliest tasks (below `min_confidence`:
by the fallback and that of the likeliest). A merged tree that is wide enough has every path of both, so at least the
better one's accept length; it costs both their drafting, and the dearer verify forward. What the second one adds where
the first is right is not known from a profile and counts for nothing, so that the choice is a careful one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.build.assign.result import Assignment
from sglang_hetero_spec.build.assign.threshold import prompt_weights
from sglang_hetero_spec.build.profile.model import Candidate, Cell, SpeedModel
from sglang_hetero_spec.build.profile.records import NONE

NO_BASES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Second:
    """second_below: None where a second drafter never pays. tokens_per_second: with it, tasks apart; alone: without."""

    second_below: float | None
    tokens_per_second: float
    alone_tokens_per_second: float


@dataclass(frozen=True)
class PairCosts:
    """Seconds per token of true task i: alone[i, j] served by drafter j, together[i, j, k] by j and k. The first T
    drafters are those of the tasks, the last is the fallback's."""

    alone: np.ndarray
    together: np.ndarray


def pair_costs(
    model: SpeedModel, assignment: Assignment, tasks: Sequence[str], base_of: Mapping[str, str] = NO_BASES
) -> PairCosts:
    """Every drafter must have been measured on every task (`threshold.seconds_matrix` says so in a sentence). base_of:
    of adapters; two drafters of one model are no pair (router.route)."""
    of_task = {item.task: item.candidate for item in assignment.tasks}
    drafters = [*(of_task[task] for task in tasks), assignment.fallback]
    size = len(tasks), len(drafters)
    alone, together = np.zeros(size), np.zeros((*size, len(drafters)))
    for i, task in enumerate(tasks):
        cells = [model.cell(candidate, task, assignment.concurrency) for candidate in drafters]
        for j, first in enumerate(cells):
            assert first is not None
            alone[i, j] = first.seconds_per_token
            for k, second in enumerate(cells):
                assert second is not None
                pays_twice = _is_pair(drafters[j], drafters[k], base_of)
                together[i, j, k] = _seconds(first, second) if pays_twice else first.seconds_per_token
    return PairCosts(alone, together)


def choose_second(
    probabilities: np.ndarray, labels: np.ndarray, costs: PairCosts, min_confidence: float, traffic: np.ndarray
) -> Second:
    """The threshold of least seconds per token: every confidence is tried. Arguments as of `choose_threshold`."""
    fallback = probabilities.shape[1]
    order = np.argsort(-probabilities, axis=1, kind="stable")
    confidence, first, next_best = probabilities.max(axis=1), order[:, 0], order[:, min(1, fallback - 1)]
    is_routed = confidence >= min_confidence
    one, other = np.where(is_routed, first, fallback), np.where(is_routed, next_best, first)
    weights = prompt_weights(labels, traffic)
    alone = weights * costs.alone[labels, one]
    together = weights * costs.together[labels, one, other]
    ranked = np.argsort(confidence, kind="stable")
    # Entry i: the i least sure prompts have two drafters. Prompts of equal confidence go together.
    totals = alone.sum() + np.append(0.0, np.cumsum((together - alone)[ranked]))
    edges = confidence[ranked]
    possible = np.concatenate([[True], edges[1:] > edges[:-1], [True]])
    best = int(np.where(possible, totals, np.inf).argmin())
    return Second(
        second_below=None if best == 0 else _between(edges, best),
        tokens_per_second=float(1 / totals[best]),
        alone_tokens_per_second=float(1 / totals[0]),
    )


def _is_pair(first: Candidate, second: Candidate, base_of: Mapping[str, str]) -> bool:
    models = {base_of.get(candidate.drafter, candidate.drafter) for candidate in (first, second)}
    return len(models) == 2 and NONE not in models


def _seconds(first: Cell, second: Cell) -> float:
    """Per token, of a step in which both draft and the better one's drafts are right."""
    forwards = min(first.forwards_per_token, second.forwards_per_token)
    step = first.draft_seconds + second.draft_seconds + max(first.verify_seconds, second.verify_seconds)
    return forwards * step + first.other_seconds


def _between(edges: np.ndarray, count: int) -> float:
    """A threshold that the `count` least sure prompts are below, and no other."""
    low, high = float(edges[count - 1]), float(edges[count]) if count < len(edges) else 1.0
    middle = round((low + high) / 2, 4)
    return middle if low < middle <= high else high
