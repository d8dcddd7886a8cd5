"""Merging tasks: against every possible way, on small random profiles."""

from __future__ import annotations

import itertools
import random

import pytest

from sglang_hetero_spec.build.partition import PartitionError, merge_tasks

Lengths = dict[str, dict[str, float]]


def by_hand(lengths: Lengths, shares: dict[str, float], tolerance: float) -> tuple[int, float]:
    """Fewest groups, and the smallest weighted relative loss with so many."""
    drafters = list(next(iter(lengths.values())))
    found = []
    for choice in itertools.product(drafters, repeat=len(lengths)):
        losses = []
        for (task, row), drafter in zip(lengths.items(), choice, strict=True):
            best = max(row.values())
            if row[drafter] < (1 - tolerance) * best:
                break
            losses.append(shares[task] * (best - row[drafter]) / best)
        else:
            found.append((len(set(choice)), sum(losses)))
    return min(found)


def test_as_few_and_as_good_as_can_be() -> None:
    rng = random.Random(0)
    for _ in range(60):
        tasks, drafters = rng.randint(1, 5), rng.randint(1, 4)
        lengths = {f"t{t}": {f"d{d}": rng.uniform(2, 3) for d in range(drafters)} for t in range(tasks)}
        shares = {task: rng.uniform(0.1, 1) for task in lengths}
        tolerance = rng.choice((0.0, 0.02, 0.1, 0.3))
        found = merge_tasks(lengths, shares=shares, tolerance=tolerance)
        assert sorted(task for group in found for task in group.tasks) == sorted(lengths)
        loss = sum(
            shares[task] * (max(lengths[task].values()) - lengths[task][group.drafter]) / max(lengths[task].values())
            for group in found
            for task in group.tasks
        )
        groups, least = by_hand(lengths, shares, tolerance)
        assert len(found) == len({group.drafter for group in found}) == groups
        assert loss == pytest.approx(least, abs=1e-6)


def test_a_bad_drafter_changes_nothing() -> None:
    lengths = {"a": {"x": 3.0, "y": 2.9}, "b": {"x": 2.0, "y": 2.5}}
    worse = {task: {**row, "z": 1.0} for task, row in lengths.items()}
    assert merge_tasks(worse, tolerance=0.05) == merge_tasks(lengths, tolerance=0.05)


@pytest.mark.parametrize(
    ("lengths", "tolerance", "sentence"),
    [
        ({}, 0.1, "nothing to merge"),
        ({"a": {}}, 0.1, "nothing to merge"),
        ({"a": {"x": 1.0}, "b": {"y": 1.0}}, 0.1, "task `b` was not measured with every drafter"),
        ({"a": {"x": float("nan")}}, 0.1, "not a number above 0"),
        ({"a": {"x": 0.0}}, 0.1, "not a number above 0"),
        ({"a": {"x": 1.0}}, 1.0, "tolerance"),
    ],
)
def test_bad_profiles(lengths: Lengths, tolerance: float, sentence: str) -> None:
    with pytest.raises(PartitionError, match=sentence):
        merge_tasks(lengths, tolerance=tolerance)
