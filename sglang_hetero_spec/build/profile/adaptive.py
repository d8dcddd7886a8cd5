"""A sorted drafter and one target: its fixed exits measured, thresholds chosen by many held-out answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sglang_hetero_spec.build.profile.candidates import Candidate, find_candidates
from sglang_hetero_spec.build.profile.exits import Adaptive, by_confidence
from sglang_hetero_spec.build.profile.measure import ProfileOptions, load_workload, profile
from sglang_hetero_spec.build.prompts import PROMPTS_NAME, read_prompts

# Of each task: thresholds are chosen by more answers than are measured.
_CHOSEN_BY = 100


@dataclass(frozen=True)
class Tuned:
    """fixed: each exit with each shape; of_concurrency: one for each shape, of those who leave by confidence."""

    fixed: tuple[Candidate, ...]
    of_concurrency: Mapping[int, tuple[Adaptive, ...]]

    def best(self, concurrency: int) -> Adaptive:
        return max(self.of_concurrency[concurrency], key=lambda item: item.chosen.tokens_per_second)


def tune(target: Path, name: str, drafter: Path, split: Path, out: Path, options: ProfileOptions) -> Tuned:
    """drafter: made by `align` with `exits`. split: held-out prompts of the target and its answers (prompts.jsonl and
    heldout.jsonl, as a build has them). out: the profile of the fixed exits; the same call goes on with it."""
    given, prompts = f"{name}={drafter}", read_prompts(split / PROMPTS_NAME)
    fixed = find_candidates([given], options.shapes)
    records = profile(target, [given], prompts, out, options).records
    known = load_workload(str(target), prompts, replace(options, num_prompts=_CHOSEN_BY))
    texts = [ids for of_task in known.prompts.values() for ids in of_task]
    return Tuned(
        fixed,
        {
            number: tuple(by_confidence(fixed, records, texts, split / "heldout.jsonl", [number]))
            for number in options.concurrency
        },
    )
