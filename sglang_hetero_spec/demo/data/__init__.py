"""The demo's six tasks: prompts with reference answers, made again the same way each time.

Held-out content never occurs in training: the split is by a hash of the content, not of the wording.
"""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

from sglang_hetero_spec.demo.data import math_word, python_code, restaurants, sql, to_json, translate
from sglang_hetero_spec.demo.data.base import Example, Generator, Sources, is_heldout

TASKS: dict[str, Generator] = {
    "python": python_code.generate,
    "math": math_word.generate,
    "e2e": restaurants.generate,
    "json": to_json.generate,
    "sql": sql.generate,
    "translate": translate.generate,
}
TASK_NAMES = {
    "python": "Python code",
    "math": "arithmetic word problems",
    "e2e": "fields to sentences",
    "json": "sentences to JSON",
    "sql": "SQL",
    "translate": "English to German",
}
_FILES = ("gsm8k_train.jsonl", "e2e_dev.csv")


def find_sources(data: Path | None) -> tuple[Sources, str | None]:
    """The sources under `data`, and one line to show where real text is missing (None when all is there)."""
    if data is None or not data.is_dir():
        return Sources(None), f"no data folder at {data}: only generated text and the standard library are used"
    missing = [name for name in _FILES if not (data / name).is_file()]
    note = f"{data} has no {' and no '.join(missing)}: generated text is used in its place" if missing else None
    return Sources(data), note


def examples(task: str, count: int, *, heldout: bool, sources: Sources, seed: int = 0) -> list[Example]:
    """`count` different examples of one task, all from the training side or all held out.

    Raises ValueError where the task cannot give as many.
    """
    rng = random.Random(f"{task}/{heldout}/{seed}")
    stream = islice(TASKS[task](rng, sources), 400 * count + 20_000)
    found: dict[str, Example] = {}
    seen: set[str] = set()
    for item in stream:
        # Held-out contents are shown once each, so that a task is measured on many contents.
        if is_heldout(item.key) == heldout and not (heldout and item.key in seen):
            seen.add(item.key)
            found.setdefault(item.prompt, item)
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"task {task}: only {len(found)} of {count} different prompts could be made; ask for fewer")


def training_prompts(data: Path | None, per_task: int = 2000, seed: int = 0) -> tuple[list[str], list[str]]:
    """Prompts and their task ids, from the training side: what the demo's router is fitted on."""
    sources, _ = find_sources(data)
    made = [item for task in TASKS for item in examples(task, per_task, heldout=False, sources=sources, seed=seed)]
    return [item.prompt for item in made], [item.task for item in made]


__all__ = ["TASKS", "TASK_NAMES", "Example", "Sources", "examples", "find_sources", "is_heldout", "training_prompts"]
