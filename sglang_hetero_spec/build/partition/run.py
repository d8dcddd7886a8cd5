"""`partition_log`: from a log of prompts to prompts.jsonl and tasks.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from sglang_hetero_spec.build.locks import directory_lock
from sglang_hetero_spec.build.partition.choose import Score
from sglang_hetero_spec.build.partition.duplicates import Distinct, distinct_prompts
from sglang_hetero_spec.build.partition.errors import PartitionError
from sglang_hetero_spec.build.partition.estimator import OUTLIER, Partitioner
from sglang_hetero_spec.build.partition.terms import task_name
from sglang_hetero_spec.build.prompts import (
    PROMPTS_NAME,
    REJECTS_NAME,
    Log,
    LogError,
    Prompt,
    Reject,
    read_log,
    write_lines,
    write_prompts,
    write_rejects,
)
from sglang_hetero_spec.build.regenerate.answers import read_answers
from sglang_hetero_spec.files import write_json

TASKS_NAME = "tasks.json"
DUPLICATES_NAME = "duplicates.jsonl"
SUMMARY_NAME = "partition.json"
_EXAMPLES = 3
_MOST_UNANSWERED = 0.1


@dataclass(frozen=True)
class TaskFound:
    """One task: `size` prompts, standing for `requests` lines of the log (repeated ones counted)."""

    id: str
    name: str
    size: int
    requests: int
    top_terms: tuple[str, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Partition:
    """What partition found and wrote.

    `adjusted_rand_index` compares tasks with the log's labels, outliers as a task of their own; None where a
    prompt has no label. `scores` say how good each number of tasks was that was tried.
    """

    prompts: tuple[Prompt, ...]
    tasks: tuple[TaskFound, ...]
    outliers: int
    distinct: Distinct
    rejects: tuple[Reject, ...]
    scores: tuple[Score, ...]
    with_answers: bool
    random_state: int
    adjusted_rand_index: float | None

    def summary(self) -> dict[str, Any]:
        """The counts, for machines."""
        kinds = [duplicate.kind for duplicate in self.distinct.duplicates]
        return {
            "n_tasks": len(self.tasks),
            "prompts": len(self.prompts),
            "outliers": self.outliers,
            "exact_duplicates": kinds.count("exact"),
            "near_duplicates": kinds.count("near"),
            "rejects": len(self.rejects),
            "with_answers": self.with_answers,
            "random_state": self.random_state,
            "adjusted_rand_index": self.adjusted_rand_index,
            "scores": [asdict(score) for score in self.scores],
        }


def partition_log(
    log: str | Path,
    out: str | Path,
    *,
    answers: str | Path | None = None,
    estimator: Partitioner | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Partition:
    """Read a log, find its tasks, and write prompts.jsonl, tasks.json and what was left out into the folder `out`.

    `answers` is an answers.jsonl of `regenerate`; its answers then join the prompts. HeteroError in one sentence;
    rejects.jsonl is written even then. Files of an earlier run are replaced, each in one step; partition.json, the
    last, is there only when all others belong to it.
    """
    out = Path(out)
    with directory_lock(out, "partition", "hetero-spec partition"):
        (out / SUMMARY_NAME).unlink(missing_ok=True)
        read = _read(Path(log), out)
        found = partition_prompts(read, answers=answers, estimator=estimator, progress=progress)
        write_lines(out / DUPLICATES_NAME, (asdict(duplicate) for duplicate in found.distinct.duplicates))
        write_prompts(out / PROMPTS_NAME, found.prompts)
        write_json(out / TASKS_NAME, [asdict(task) for task in found.tasks], PartitionError)
        write_json(out / SUMMARY_NAME, found.summary(), PartitionError)
    return found


def partition_prompts(
    log: Log,
    *,
    answers: str | Path | None = None,
    estimator: Partitioner | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Partition:
    """The same without files: the tasks of a log's prompts."""
    estimator = estimator or Partitioner()
    distinct = distinct_prompts(log.prompts)
    prompts = distinct.prompts
    if len(prompts) == 1 and len(log.prompts) > 1:
        raise PartitionError(
            f"all {len(log.prompts)} prompts are the same, so there is nothing to partition; give a log of"
            " different prompts."
        )
    texts = [prompt.text for prompt in prompts]
    estimator.fit(texts, None if answers is None else _answers(Path(answers), prompts), progress=progress)
    labels = estimator.labels_
    ids = estimator.ids_
    return Partition(
        prompts=tuple(
            replace(prompt, task=None if label == OUTLIER else ids[label])
            for prompt, label in zip(prompts, labels, strict=True)
        ),
        tasks=tuple(
            _task(estimator, number, texts, np.array(distinct.requests)) for number in range(estimator.n_tasks_)
        ),
        outliers=int((labels == OUTLIER).sum()),
        distinct=distinct,
        rejects=log.rejects,
        scores=tuple(estimator.scores_),
        with_answers=answers is not None,
        random_state=estimator.random_state,
        adjusted_rand_index=_agreement(prompts, labels),
    )


def _read(path: Path, out: Path) -> Log:
    try:
        log = read_log(path)
    except LogError as error:
        write_rejects(out / REJECTS_NAME, error.rejects)
        raise
    write_rejects(out / REJECTS_NAME, log.rejects)
    return log


def _answers(path: Path, prompts: Sequence[Prompt]) -> list[str | None]:
    known = {answer.id: answer.text for answer in read_answers(path)}
    found = [known.get(prompt.id) for prompt in prompts]
    missing = found.count(None)
    if missing > _MOST_UNANSWERED * len(prompts):
        raise PartitionError(
            f"{path} answers {len(prompts) - missing} of {len(prompts)} prompts; run `regenerate` to its end, or"
            " leave --answers out."
        )
    return found


def _task(estimator: Partitioner, number: int, texts: Sequence[str], requests: np.ndarray) -> TaskFound:
    rows = np.flatnonzero(estimator.labels_ == number)
    center = estimator.embedding_[rows].mean(axis=0)
    typical = rows[np.argsort(-(estimator.embedding_[rows] @ center), kind="stable")]
    # Spread over the nearer half, so that the examples differ.
    shown = typical[: max(len(typical) // 2, _EXAMPLES)]
    picked = shown[np.linspace(0, len(shown) - 1, min(_EXAMPLES, len(shown))).astype(int)]
    terms = estimator.terms_[number]
    return TaskFound(
        id=estimator.ids_[number],
        name=task_name(terms, estimator.ids_[number]),
        size=len(rows),
        requests=int(requests[rows].sum()),
        top_terms=tuple(terms),
        examples=tuple(texts[row] for row in picked),
    )


def _agreement(prompts: Sequence[Prompt], labels: np.ndarray) -> float | None:
    given = [prompt.label for prompt in prompts]
    if None in given:
        return None
    return float(adjusted_rand_score(given, labels))


def read_tasks(folder: Path) -> tuple[TaskFound, ...]:
    """What was written to tasks.json in `folder`."""
    rows = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    return tuple(
        TaskFound(**{**row, "top_terms": tuple(row["top_terms"]), "examples": tuple(row["examples"])}) for row in rows
    )
