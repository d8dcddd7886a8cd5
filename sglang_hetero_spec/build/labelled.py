"""Tasks by the log's own labels: what automatic partition is judged against, and for users who know better."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from sglang_hetero_spec.build.partition import PartitionError, TaskFound, distinct_prompts
from sglang_hetero_spec.build.partition.terms import top_terms
from sglang_hetero_spec.build.prompts import Prompt, read_log, write_prompts, write_rejects
from sglang_hetero_spec.files import write_json

_EXAMPLES = 3


def write_labelled(log: Path, folder: Path) -> None:
    """prompts.jsonl and tasks.json as `partition` writes them, a task for each label; prompts without one are outliers.

    PartitionError if there is no label at all, or two labels have one id.
    """
    read = read_log(log)
    distinct = distinct_prompts(read.prompts)
    ids = _ids({prompt.label for prompt in distinct.prompts if prompt.label is not None}, log)
    prompts = [replace(p, task=None if p.label is None else ids[p.label]) for p in distinct.prompts]
    requests: Counter[str | None] = Counter()
    for prompt, count in zip(prompts, distinct.requests, strict=True):
        requests[prompt.task] += int(count)
    tasks = []
    for (label, task), terms in zip(sorted(ids.items()), _terms(prompts, ids), strict=True):
        mine = [prompt.text for prompt in prompts if prompt.task == task]
        tasks.append(TaskFound(task, label, len(mine), requests[task], tuple(terms), tuple(mine[:_EXAMPLES])))
    write_rejects(folder / "rejects.jsonl", read.rejects)
    write_prompts(folder / "prompts.jsonl", prompts)
    write_json(folder / "tasks.json", [asdict(task) for task in tasks], PartitionError)


def _terms(prompts: Sequence[Prompt], ids: Mapping[str, str]) -> list[list[str]]:
    """Of each task, in the order of the labels."""
    numbers = {task: number for number, (_, task) in enumerate(sorted(ids.items()))}
    known = [(prompt.text, numbers[prompt.task]) for prompt in prompts if prompt.task is not None]
    return top_terms([text for text, _ in known], np.array([number for _, number in known]), len(ids))


def _ids(labels: set[str], log: Path) -> dict[str, str]:
    if not labels:
        raise PartitionError(f"{log} has no `task` labels; leave `use_labels` out, or label the prompts.")
    ids = {label: re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("._-")[:64] or "task" for label in sorted(labels)}
    if len(set(ids.values())) < len(ids):
        raise PartitionError(f"{log} has labels that differ in punctuation only; rename them.")
    return ids
