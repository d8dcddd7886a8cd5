"""The profile in the real engine, on the tiny pool: `same` is the target, so all its drafts are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sglang_hetero_spec.build.profile.measure import ProfileOptions, profile
from sglang_hetero_spec.build.profile.model import NO_DRAFTER, SpeedModel
from sglang_hetero_spec.build.profile.records import read_profile
from sglang_hetero_spec.build.prompts import plain_prompt, write_prompts
from tests.support.routed_pool import SHAPES, prompt_of, write_routed_pool
from tests.support.tiny_models import write_tiny_model

pytestmark = pytest.mark.slow

TASKS = ("sums", "code")
OPTIONS = ProfileOptions(concurrency=(1, 4), num_prompts=4, max_new_tokens=16, passes=2)


def test_every_candidate_on_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    routed = write_routed_pool(tmp_path / "routed", router=False)
    stranger = write_tiny_model(tmp_path / "stranger", seed=5)
    tokenizer = json.loads((stranger / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["of another model"] = 10 * len(vocabulary)
    (stranger / "tokenizer.json").write_text(json.dumps(tokenizer))
    prompts = [plain_prompt(prompt_of(task, number), task=task) for task in TASKS for number in range(5)]
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    out = tmp_path / "profile.jsonl"

    found = profile(routed.target, [str(routed.pool), f"stranger={stranger}"], tmp_path / "prompts.jsonl", out, OPTIONS)

    assert [item.candidate.drafter for item in found.left_out] == ["stranger"]
    assert "the tokenizer of another model" in found.left_out[0].reason
    records = read_profile(out)
    drafters = {"none": (0, 1, 1), **SHAPES}
    assert {(r.drafter, r.task, r.concurrency) for r in records} == {
        (drafter, task, concurrency) for drafter in drafters for task in TASKS for concurrency in (1, 4)
    }
    tokens = {(r.task, r.concurrency): r.completion_tokens for r in records if r.drafter == "none"}
    for record in records:
        steps, topk, nodes = drafters[record.drafter]
        assert record.settings == (steps, topk, nodes)
        assert record.requests == 8
        assert record.completion_tokens == tokens[record.task, record.concurrency]  # greedy: the target's answers
        assert record.proposed_drafts == record.verify_steps * (nodes - 1)
        assert 0 < record.draft_seconds < record.seconds
        assert record.draft_seconds + record.verify_seconds < record.seconds
        assert record.verify_steps / record.concurrency <= record.verify_forwards <= record.verify_steps
        if record.concurrency == 1:
            assert record.verify_forwards == record.verify_steps
        if record.drafter == "same":
            assert record.correct_by_position == (record.verify_steps,) * 3
        if record.drafter == "none":
            assert record.draft_seconds < 0.1 * record.verify_seconds  # what it takes to draft nothing
            assert record.verify_steps == record.completion_tokens - record.requests
    model = SpeedModel(records)
    assert model.candidates[0] == NO_DRAFTER and set(model.tasks) == set(TASKS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "profile.jsonl", "prompts.jsonl", "routed", "stranger",
    ]  # fmt: skip
