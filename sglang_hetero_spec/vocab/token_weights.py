"""How often the target writes each token on a pool's tasks, as far as the pool itself tells.

What stands for the target's probability mass, best first: the tokens of the target's own answers, which a build keeps
beside its pool; the example prompts of tasks.json, each task weighted by its size. Both are optional, and what cannot
be read counts as absent: nothing hangs on them but a figure and the choice of `vocab: auto`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sglang_hetero_spec.vocab.mid_text import MidText

TASKS = Path("tasks.json")
ANSWERS = Path(".build", "regenerate", "answers.jsonl")
# Enough for a share to a tenth of a percent; a larger file takes no longer.
_MAX_BYTES = 8 << 20
_UNUSABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class TokenWeights:
    """counts: float64 [V_target], of any scale. source: what was counted, for a sentence."""

    counts: np.ndarray
    source: str


def pool_weights(root: Path, target: MidText) -> TokenWeights | None:
    """None where the pool in `root` has neither answers nor example prompts. target: the target's tokenizer."""
    num_target = len(target.table)
    answers = _answers(root / ANSWERS, num_target)
    if answers.any():
        return TokenWeights(answers, "the target's answers")
    examples = _examples(root / TASKS, target)
    return TokenWeights(examples, "the tasks' example prompts") if examples.any() else None


def _answers(path: Path, num_target: int) -> np.ndarray:
    """Counts of the tokens that the target wrote; none where they are not this target's."""
    counts = np.zeros(num_target, np.int64)
    try:
        for row in _rows(path):
            ids = np.array(row["output_ids"], np.int64)
            if len(ids) and not 0 <= ids.min() <= ids.max() < num_target:
                raise ValueError
            counts += np.bincount(ids, minlength=num_target)
    except _UNUSABLE:
        return np.zeros(num_target)
    return counts.astype(np.float64)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of the first `_MAX_BYTES`."""
    with path.open("rb") as file:
        num_bytes = 0
        for line in file:
            num_bytes += len(line)
            if num_bytes > _MAX_BYTES:
                return
            yield json.loads(line)


def _examples(path: Path, target: MidText) -> np.ndarray:
    weights = np.zeros(len(target.table))
    try:
        if path.stat().st_size > _MAX_BYTES:
            return weights
        for task in json.loads(path.read_text(encoding="utf-8")):
            ids = [token_id for text in task["examples"] for token_id in target.encode(str(text).encode())]
            if ids:
                weights += max(int(task.get("size", 1)), 1) / len(ids) * np.bincount(ids, minlength=len(weights))
    except _UNUSABLE:
        return np.zeros(len(target.table))
    return weights
