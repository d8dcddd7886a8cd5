"""After the profile: tasks that one drafter serves about as well as the best of each become one task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sglang_hetero_spec.build.partition import MergedTask, TaskFound, merge_tasks
from sglang_hetero_spec.build.profile.model import Candidate
from sglang_hetero_spec.build.profile.records import ProfileRecord, read_profile, write_profile
from sglang_hetero_spec.build.prompts import PROMPTS_NAME, read_prompts, write_prompts
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_json

HELDOUT_NAME, PROFILE_NAME = "heldout_prompts.jsonl", "profile.jsonl"
_MERGED_NAME = "merged.json"
_TERMS, _EXAMPLES = 10, 3


def merged_traffic(folder: Path, before: Mapping[str, float]) -> dict[str, float]:
    """Weights by the task that each became; a task that is not known keeps its name, for `assign` to refuse."""
    groups = json.loads((folder / _MERGED_NAME).read_text(encoding="utf-8"))
    ids = {task: group["tasks"][0] for group in groups for task in group["tasks"]}
    found: dict[str, float] = {}
    for task, weight in before.items():
        name = ids.get(task, task)
        found[name] = found.get(name, 0.0) + weight
    return found


def find_merging(
    records: Sequence[ProfileRecord], tasks: Sequence[TaskFound], tolerance: float
) -> tuple[MergedTask, ...]:
    """The groups of tasks that become one; the first of each gives its id.

    By accept length over all that was measured, of drafters that were measured on every task; tolerance 0 merges none.
    """
    if tolerance == 0 or len(tasks) < 2:
        return tuple(MergedTask((task.id,), "") for task in tasks)
    lengths: dict[str, dict[str, float]] = {}
    for task in tasks:
        sums: dict[str, list[int]] = {}
        for record in records:
            if record.task == task.id:
                counts = sums.setdefault(str(Candidate(record.drafter, record.settings)), [0, 0])
                counts[0] += record.verify_steps + record.num_correct_drafts
                counts[1] += record.verify_steps
        lengths[task.id] = {name: tokens / steps for name, (tokens, steps) in sums.items() if steps}
    everywhere = set.intersection(*(set(row) for row in lengths.values()))
    comparable = {task: {name: row[name] for name in row if name in everywhere} for task, row in lengths.items()}
    shares = {task.id: float(task.requests) for task in tasks}
    return merge_tasks(comparable, shares=shares, tolerance=tolerance)


def write_merged(
    folder: Path, tasks: Sequence[TaskFound], profile: Path, prompts: Path, heldout: Path, tolerance: float
) -> tuple[MergedTask, ...]:
    """tasks.json, prompts.jsonl, profile.jsonl and the held-out prompts as they are after merging; merged.json."""
    records = read_profile(profile)
    groups = find_merging(records, tasks, tolerance)
    ids: dict[str | None, str] = {task: group.tasks[0] for group in groups for task in group.tasks}
    by_id = {task.id: task for task in tasks}
    for source, name in ((prompts, PROMPTS_NAME), (heldout, HELDOUT_NAME)):
        write_prompts(folder / name, [replace(prompt, task=ids.get(prompt.task)) for prompt in read_prompts(source)])
    write_profile(folder / PROFILE_NAME, [replace(record, task=ids[record.task]) for record in records])
    united = [_united([by_id[task] for task in group.tasks]) for group in groups]
    write_json(folder / "tasks.json", [asdict(task) for task in united], HeteroError)
    write_json(folder / _MERGED_NAME, [asdict(group) for group in groups], HeteroError)
    return groups


def _united(tasks: Sequence[TaskFound]) -> TaskFound:
    """Terms and examples of each in turn."""
    if len(tasks) == 1:
        return tasks[0]

    def in_turn(columns: Sequence[Sequence[str]], most: int) -> tuple[str, ...]:
        longest = max(map(len, columns))
        mixed = (column[place] for place in range(longest) for column in columns if place < len(column))
        return tuple(dict.fromkeys(mixed))[:most]

    return TaskFound(
        tasks[0].id,
        " / ".join(task.name for task in tasks),
        sum(task.size for task in tasks),
        sum(task.requests for task in tasks),
        in_turn([task.top_terms for task in tasks], _TERMS),
        in_turn([task.examples for task in tasks], _EXAMPLES),
    )
