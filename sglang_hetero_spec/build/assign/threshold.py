"""`min_confidence` by what a wrong route costs: held-out probabilities, and the speed of every drafter on every task.

A prompt whose confidence reaches the threshold is served by the drafter of the predicted task, right or wrong; any
other by the fallback. Both have their seconds per token on the prompt's true task, from the profile. The threshold of
least seconds per token over the traffic is chosen, exactly for the held-out prompts: every confidence is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sglang_hetero_spec.build.assign.problem import AssignError
from sglang_hetero_spec.build.assign.result import Assignment
from sglang_hetero_spec.build.profile.model import SpeedModel

_CURVE_POINTS = 101
_SAME = 1e-9  # relative


@dataclass(frozen=True)
class CurvePoint:
    """What a threshold would do to the traffic: shares of the requests (weighted), expected tokens per second."""

    min_confidence: float
    routed_share: float
    wrong_share: float
    tokens_per_second: float


@dataclass(frozen=True)
class Confusion:
    """Prompts of `task` predicted as `predicted`, and what serving the one as the other is expected to give."""

    task: str
    predicted: str
    num_prompts: int
    tokens_per_second: float


@dataclass(frozen=True)
class Threshold:
    """The chosen `min_confidence`, and what the report shows of the choice.

    plateau: the thresholds as good as the chosen one, above the first and up to the second. Speeds are tokens per
    second with tasks apart: with the chosen one, with each prompt's true task (`oracle`), all routed, none routed.
    """

    min_confidence: float
    plateau: tuple[float, float]
    chosen_tokens_per_second: float
    oracle_tokens_per_second: float
    always_routed_tokens_per_second: float
    fallback_tokens_per_second: float
    curve: tuple[CurvePoint, ...]
    confusion: tuple[Confusion, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def seconds_matrix(model: SpeedModel, assignment: Assignment, tasks: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds per token: [T, T], of task i served as if it were task j; and [T], served by the fallback."""
    of_task = {item.task: item.candidate for item in assignment.tasks}
    rows = []
    for task in tasks:
        row = []
        for candidate in (*(of_task[other] for other in tasks), assignment.fallback):
            cell = model.cell(candidate, task, assignment.concurrency)
            if cell is None:
                raise AssignError(
                    f"the profile says nothing of {candidate} on task `{task}` at concurrency"
                    f" {assignment.concurrency}, so a wrong route has no price; profile every drafter on every task."
                )
            row.append(cell.seconds_per_token)
        rows.append(row)
    table = np.array(rows)
    return table[:, :-1], table[:, -1]


def choose_threshold(
    probabilities: np.ndarray,
    labels: np.ndarray,
    seconds: np.ndarray,
    fallback_seconds: np.ndarray,
    traffic: np.ndarray,
    tasks: Sequence[str],
) -> Threshold:
    """The threshold of least expected seconds per token.

    probabilities: [num_prompts, T], calibrated, of prompts that the fit did not see; labels: [num_prompts]; seconds,
    fallback_seconds: see `seconds_matrix`; traffic: [T], shares of the tokens. Where many thresholds are as good as
    each other the middle of them is taken, between what was never worth routing and what always was; 1 / T is the
    lowest confidence that can be.
    """
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    weights = prompt_weights(labels, traffic)
    routed, fallback = weights * seconds[labels, predicted], weights * fallback_seconds[labels]
    order = np.argsort(-confidence, kind="stable")
    # Entry i: the i surest prompts are routed. Prompts of equal confidence go together.
    totals = fallback.sum() + np.append(0.0, np.cumsum((routed - fallback)[order]))
    ranked = confidence[order]
    possible = np.concatenate([[ranked[0] < 1], ranked[1:] < ranked[:-1], [True]])
    totals = np.where(possible, totals, np.inf)
    low, high = _plateau(totals, ranked, 1 / len(tasks))
    chosen = round((low + high) / 2, 4)
    if not low < chosen <= high:
        chosen = high

    def at(value: float) -> CurvePoint:
        through = confidence >= value
        return CurvePoint(
            min_confidence=float(value),
            routed_share=float(weights[through].sum()),
            wrong_share=float(weights[through & (predicted != labels)].sum()),
            tokens_per_second=float(1 / np.where(through, routed, fallback).sum()),
        )

    return Threshold(
        min_confidence=float(chosen),
        plateau=(float(low), float(high)),
        chosen_tokens_per_second=at(chosen).tokens_per_second,
        oracle_tokens_per_second=float(1 / (weights * seconds[labels, labels]).sum()),
        always_routed_tokens_per_second=float(1 / routed.sum()),
        fallback_tokens_per_second=float(1 / fallback.sum()),
        curve=tuple(at(value) for value in np.linspace(0, 1, _CURVE_POINTS)),
        confusion=_confusion(labels, predicted, seconds, tasks),
    )


def _plateau(totals: np.ndarray, ranked: np.ndarray, floor: float) -> tuple[float, float]:
    """The thresholds, above the first and up to the second, of the longest run of equally good ones.

    totals: [n + 1] by number of routed prompts, inf where it cannot be; ranked: [n] confidences, falling.
    """
    edges = np.concatenate([[1.0], ranked, [min(floor, float(ranked[-1]))]])
    good = totals <= totals.min() * (1 + _SAME)
    best, start = (0.0, 0.0), None
    for number in range(len(totals)):
        if good[number]:
            start = number if start is None else start
            run = float(edges[number + 1]), float(edges[start])
            if run[1] - run[0] >= best[1] - best[0]:
                best = run
        elif np.isfinite(totals[number]):
            start = None
    return best


def prompt_weights(labels: np.ndarray, traffic: np.ndarray) -> np.ndarray:
    """Of each prompt, in all 1: its task's share of the tokens, shared among the task's prompts."""
    counts = np.bincount(labels, minlength=len(traffic))
    weights = traffic[labels] / counts[labels]
    if weights.sum() <= 0:
        raise AssignError("no prompt belongs to a task that has traffic; give prompts of the tasks that are served.")
    return weights / weights.sum()


def _confusion(labels: np.ndarray, predicted: np.ndarray, seconds: np.ndarray, tasks: Sequence[str]) -> tuple:
    counts = np.zeros(seconds.shape, dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    return tuple(
        Confusion(tasks[i], tasks[j], int(counts[i, j]), float(1 / seconds[i, j]))
        for i in range(len(tasks))
        for j in range(len(tasks))
        if counts[i, j] or i == j
    )
