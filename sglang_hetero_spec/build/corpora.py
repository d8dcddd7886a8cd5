"""N-gram drafters of a build: for each task a corpus of what the target answered to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sglang_hetero_spec.build.ngram_corpus import answer_texts, make_corpus
from sglang_hetero_spec.pool.entries.ngram import DEFAULT_CAPACITY


def corpus_name(task: str) -> str:
    """Of the task's n-gram drafter."""
    return f"{task}-ngram"


def make_corpora(folder: Path, answers: Path, tasks: Sequence[str], target: str) -> None:
    """folder/<name>/corpus.safetensors for each task; the first answers where they are more than a drafter holds."""
    for task in tasks:
        kept: list[Sequence[int]] = []
        room = DEFAULT_CAPACITY
        for text in answer_texts(answers, task):
            room -= len(text) + 1
            if room < 0:
                break
            kept.append(text)
        make_corpus(folder / corpus_name(task), kept, DEFAULT_CAPACITY, target)
