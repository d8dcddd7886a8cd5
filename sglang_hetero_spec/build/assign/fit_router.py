"""Fit the router of a pool on partition's prompts, with the threshold that the profile pays for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sglang_hetero_spec.build.assign.problem import AssignError
from sglang_hetero_spec.build.assign.result import Assignment, write_json
from sglang_hetero_spec.build.assign.second import NO_BASES, Second, choose_second, pair_costs
from sglang_hetero_spec.build.assign.threshold import Threshold, choose_threshold, seconds_matrix
from sglang_hetero_spec.build.profile.model import Candidate, SpeedModel, shorter_chains
from sglang_hetero_spec.build.profile.records import ProfileRecord
from sglang_hetero_spec.build.prompts import Prompt
from sglang_hetero_spec.pool.errors import listed
from sglang_hetero_spec.router.errors import RouterError
from sglang_hetero_spec.router.fit import FittedRouter, fit_router

THRESHOLD_NAME = "threshold.json"


@dataclass(frozen=True)
class PricedRouter:
    """A fitted router whose `min_confidence` is that of `threshold`; num_outliers: prompts without a task."""

    fitted: FittedRouter
    threshold: Threshold
    second: Second
    num_outliers: int

    def save(self, folder: str | Path) -> None:
        """Write router.json and router.safetensors, and threshold.json for the report."""
        try:
            self.fitted.save(folder)
        except RouterError as error:
            raise AssignError(str(error)) from None
        write_json(Path(folder) / THRESHOLD_NAME, {**self.threshold.as_dict(), **asdict(self.second)})


def fit_priced_router(
    prompts: Sequence[Prompt],
    assignment: Assignment,
    records: Sequence[ProfileRecord],
    *,
    base_of: Mapping[str, str] = NO_BASES,
    random_state: int = 0,
) -> PricedRouter:
    """Fit a router on the prompts that have a task, and choose `min_confidence` by the cost of a wrong route.

    base_of: the drafters that adapters among the assigned ones adapt.

    AssignError, in one sentence, where prompts, assignment and profile do not belong together or teach no router.
    """
    labelled = [(prompt.text, prompt.task) for prompt in prompts if prompt.task is not None]
    _check_tasks({task for _, task in labelled}, assignment)
    try:
        fitted = fit_router([text for text, _ in labelled], [task for _, task in labelled], random_state=random_state)
    except RouterError as error:
        raise AssignError(str(error)) from None
    tasks = fitted.router.classes
    model = SpeedModel((*records, *_missing_chains(records, assignment)))
    seconds, fallback_seconds = seconds_matrix(model, assignment, tasks)
    traffic = np.array([assignment.traffic[task] for task in tasks])
    threshold = choose_threshold(fitted.held_out, fitted.labels, seconds, fallback_seconds, traffic, tasks)
    costs = pair_costs(model, assignment, tasks, base_of)
    second = choose_second(fitted.held_out, fitted.labels, costs, threshold.min_confidence, traffic)
    router = fitted.with_min_confidence(threshold.min_confidence)
    return PricedRouter(router, threshold, second, len(prompts) - len(labelled))


def _check_tasks(found: set[str], assignment: Assignment) -> None:
    known = assignment.drafter_of_task
    unknown, missing = sorted(found - known.keys()), sorted(known.keys() - found)
    if unknown:
        raise AssignError(
            f"the prompts have the task `{unknown[0]}`, which the assignment does not know ({listed(known)}); profile"
            " and assign again with these prompts."
        )
    if missing:
        raise AssignError(
            f"no prompt has the task {listed(missing)} of the assignment; give the prompts that it was made from."
        )


def _missing_chains(records: Sequence[ProfileRecord], assignment: Assignment) -> tuple[ProfileRecord, ...]:
    """Predicted records of chosen chains that were themselves predicted (`hetero-spec assign --shorter-chains`)."""
    chosen = {item.candidate for item in assignment.drafters}
    return tuple(record for record in shorter_chains(records) if Candidate(record.drafter, record.settings) in chosen)
