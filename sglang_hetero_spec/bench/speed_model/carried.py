"""What a run's accept rates say of other chains: by task, resampled over its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.bench.records import RequestRecord
from sglang_hetero_spec.bench.speed_model.accept import drafter_of


@dataclass(frozen=True)
class TaskAccepts:
    """T tasks under one arm. steps: [N, T] verify steps; at_least: [N, T, D], of those, with at least 1 ... D drafts
    right; N resamples of the prompts, the first one the prompts themselves. drafters: [T], who served most requests.
    requests: of all tasks together."""

    tasks: tuple[str, ...]
    drafters: tuple[str, ...]
    steps: np.ndarray
    at_least: np.ndarray
    requests: int

    @property
    def depth(self) -> int:
        return self.at_least.shape[2]

    def lengths(self, num_steps: int) -> np.ndarray:
        """Accept lengths [N, T], bonus included, of chains of `num_steps` drafts: the first places of the longer ones.
        Sums before division."""
        return 1 + self.at_least[:, :, :num_steps].sum(axis=2) / self.steps

    def overall(self, num_steps: int) -> np.ndarray:
        """Accept length [N] of traffic in which every task writes as many tokens."""
        return 1 / (1 / self.lengths(num_steps)).mean(axis=1)


def task_accepts(records: Sequence[RequestRecord], draws: int, seed: int = 0) -> TaskAccepts | str:
    """Of one arm's requests, each prompt once; a sentence where they do not say what is needed."""
    records = [record for record in records if record.proposed and record.verify_steps]
    if not records:
        return "no request of this arm was drafted for."
    if any(record.histogram is None for record in records):
        return "the server did not say how many drafts each verify step found right."
    depth = max(max(len(record.histogram or ()) for record in records) - 1, 1)
    tasks = tuple(sorted({record.task for record in records}))
    generator = np.random.default_rng(seed)
    steps, at_least, drafters = [], [], []
    for task in tasks:
        mine = [record for record in records if record.task == task]
        counts = np.array([_row(record, depth) for record in mine], dtype=float)
        picked = generator.integers(0, len(mine), (draws, len(mine)))
        picked[0] = np.arange(len(mine))
        sums = counts[picked].sum(axis=1)
        steps.append(sums[:, 0])
        at_least.append(sums[:, 1:])
        names = [drafter_of(record) for record in mine]
        drafters.append(max(sorted(set(names)), key=names.count))
    return TaskAccepts(tasks, tuple(drafters), np.stack(steps, 1), np.stack(at_least, 1), len(records))


def _row(record: RequestRecord, depth: int) -> list[int]:
    """Verify steps, and of those the ones with at least 1 ... `depth` drafts right."""
    histogram = list(record.histogram or ())
    return [sum(histogram), *(sum(histogram[k:]) for k in range(1, depth + 1))]
