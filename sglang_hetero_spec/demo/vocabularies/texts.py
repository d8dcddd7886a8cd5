"""Texts for tokenizers: the demo's own, and others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from sglang_hetero_spec.demo.data import TASKS, Sources, examples
from sglang_hetero_spec.demo.data.python_code import stdlib_functions

# Not the examples that the target's tokenizer was trained on.
_SEED = 1
# Of the real texts, so that no one of them decides alone what the vocabulary is.
_MOST_CHARS = 1_500_000


def demo_text(sources: Sources, per_task: int) -> list[str]:
    """Prompts and answers of the demo's six tasks."""
    found = (item for task in TASKS for item in examples(task, per_task, heldout=False, sources=sources, seed=_SEED))
    return [text for item in found for text in (item.prompt, item.answer)]


def other_text(sources: Sources) -> list[str]:
    """Real text from elsewhere: this interpreter's standard library, and what lies in the data folder."""
    found = [_limited(source for _, _, source in stdlib_functions())]
    if sources.data is not None:
        found += [_limited(_strings(path)) for path in sorted(sources.data.glob("*.jsonl"))]
        found += [_limited(_lines(path)) for path in sorted(sources.data.glob("*.csv"))]
    return [text for part in found for text in part]


def _limited(texts: Iterator[str]) -> list[str]:
    kept: list[str] = []
    size = 0
    for text in texts:
        if size >= _MOST_CHARS:
            break
        kept.append(text)
        size += len(text)
    return kept


def _lines(path: Path) -> Iterator[str]:
    yield from path.read_text(encoding="utf-8").splitlines()


def _strings(path: Path) -> Iterator[str]:
    for line in _lines(path):
        for value in json.loads(line).values():
            parts = value if isinstance(value, list) else [value]
            yield from (part for part in parts if isinstance(part, str))
