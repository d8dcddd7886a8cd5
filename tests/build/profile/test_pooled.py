"""Noise of the machine is shared; what drafters did stays theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sglang_hetero_spec.build.profile.model import Candidate, SpeedModel
from sglang_hetero_spec.build.profile.pooled import pooled
from sglang_hetero_spec.build.profile.records import Settings
from tests.build.assign.profiles import record

CHAIN = Settings(4, 1, 5)


def test_a_slow_moment_does_not_make_a_drafter_slow() -> None:
    better = record("better", "sql", 4, rate=0.9, draft=0.003, verify=0.09, other=0.01)
    worse = record("worse", "sql", 4, rate=0.8, draft=0.003, verify=0.03, other=0.001)
    records = [record("none", "sql", 0), better, worse]

    def quicker(model: SpeedModel) -> str:
        speeds = {name: model.cell(Candidate(name, CHAIN), "sql", 1) for name in ("better", "worse")}
        return max(speeds, key=lambda name: speeds[name].tokens_per_second)  # type: ignore[union-attr]

    assert quicker(SpeedModel(records)) == "worse" and quicker(SpeedModel(pooled(records))) == "better"


def test_what_is_shared_and_what_is_not() -> None:
    records = [
        record("none", "sql", 0, verify=0.02),
        record("a", "sql", 4, verify=0.05, other=0.002),
        record("b", "sql", 4, verify=0.02, draft=0.01),
        record("c", "sql", 2, verify=0.04),
        record("a", "code", 4, verify=0.07),
    ]
    after = pooled(records)
    assert [one.correct_by_position for one in after] == [one.correct_by_position for one in records]
    for before, one in zip(records, after, strict=True):
        assert one.draft_seconds / one.forwards == pytest.approx(before.draft_seconds / before.forwards)
    per_forward = {one.drafter: one.verify_seconds / one.forwards for one in after if one.task == "sql"}
    assert 0.02 < per_forward["a"] < 0.05 and per_forward["a"] == pytest.approx(per_forward["b"])
    assert per_forward["c"] == pytest.approx(0.04) and per_forward["none"] == pytest.approx(0.02)
    other = {(one.seconds - one.draft_seconds - one.verify_seconds) / one.completion_tokens for one in after[:4]}
    assert max(other) == pytest.approx(min(other), abs=1e-12) and max(other) > 0


def test_batches_are_full() -> None:
    short = replace(record("a", "sql", 4, concurrency=4, requests=8), verify_forwards=None)
    ragged = replace(short, verify_forwards=round(short.forwards * 1.5), drafter="b")
    one, other = pooled([short, ragged])
    assert one.forwards == other.forwards == short.verify_steps / 4
