"""Tasks that one drafter serves as well as their own become one, in every file that the later stages read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sglang_hetero_spec.build.merging import HELDOUT_NAME, find_merging, merged_traffic, write_merged
from sglang_hetero_spec.build.partition import TaskFound
from sglang_hetero_spec.build.profile.records import read_profile, write_profile
from sglang_hetero_spec.build.prompts import plain_prompt, read_prompts, write_prompts
from tests.build.assign.profiles import record

TASKS = [TaskFound(name, name.upper(), 10, 20, (f"{name}-term",), (f"{name} example",)) for name in ("a", "b", "c")]
RATES = {"one": (0.8, 0.8, 0.1), "two": (0.1, 0.1, 0.8), "three": (0.3, 0.805, 0.1)}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    records = [record("none", task.id, 0, draft=0.0) for task in TASKS]
    for name, rates in RATES.items():
        records += [record(name, task.id, 4, rate=rate) for task, rate in zip(TASKS, rates, strict=True)]
    path = tmp_path / "profile.jsonl"
    write_profile(path, records)
    return path


def test_the_groups(profile: Path) -> None:
    records = read_profile(profile)
    assert [group.tasks for group in find_merging(records, TASKS, 0.02)] == [("a", "b"), ("c",)]
    assert [group.tasks for group in find_merging(records, TASKS, 0.0)] == [("a",), ("b",), ("c",)]
    assert [group.tasks for group in find_merging(records, TASKS[:1], 0.5)] == [("a",)]


def test_the_files(profile: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "merge"
    out.mkdir()
    write_prompts(prompts, [replace(plain_prompt(f"text {task}"), task=task) for task in ("a", "b", "c", None)])
    write_merged(out, TASKS, profile, prompts, prompts, 0.02)
    assert [prompt.task for prompt in read_prompts(out / "prompts.jsonl")] == ["a", "a", "c", None]
    assert [prompt.task for prompt in read_prompts(out / HELDOUT_NAME)] == ["a", "a", "c", None]
    before, after = read_profile(profile), read_profile(out / "profile.jsonl")
    assert [(item.drafter, item.task) for item in after][:3] == [("none", "a"), ("none", "c"), ("one", "a")]
    assert after[0].requests == before[0].requests + before[1].requests
    first, second = json.loads((out / "tasks.json").read_text())
    assert (first["id"], first["name"], first["size"], first["requests"]) == ("a", "A / B", 20, 40)
    assert first["top_terms"] == ["a-term", "b-term"] and first["examples"] == ["a example", "b example"]
    assert second["id"] == "c"
    assert merged_traffic(out, {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}) == {"a": 3.0, "c": 3.0, "d": 4.0}
