"""`Partitioner`: the tasks of a list of prompts, with scikit-learn's habits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from sglang_hetero_spec.build.partition import choose
from sglang_hetero_spec.build.partition.errors import PartitionError
from sglang_hetero_spec.build.partition.features import TextFeatures
from sglang_hetero_spec.build.partition.outliers import far_from_all, least_size, of_strange_words
from sglang_hetero_spec.build.partition.sentence import SentenceFeatures
from sglang_hetero_spec.build.partition.terms import task_ids, top_terms

MIN_PROMPTS = 12
_PER_TASK = 5  # prompts that a task needs to be looked for
_SAMPLE = 3000
_NEIGHBOURS = 5
OUTLIER = -1


class Partitioner(ClusterMixin, BaseEstimator):
    """Find the tasks in prompts.

    Parameters
    ----------
    n_tasks : the number of tasks, or None to choose it.
    min_tasks, max_tasks : bounds of the choice.
    embedder : folder of a sentence-transformers model, or None for TF-IDF and truncated SVD.
    random_state : the same prompts and the same number give the same tasks.

    Attributes
    ----------
    labels_ : task of each prompt, from 0, the largest task first; -1 is an outlier. Shape [prompts].
    n_tasks_ : how many tasks were found.
    terms_, ids_ : the terms of each task, and an id made of them.
    scores_ : for each number of tasks that was tried, how good it is (empty where none had to be chosen).
    embedding_ : rows of unit length. Shape [prompts, dimensions].

    Prompts that are the same should be given once (see `distinct_prompts`). Above 3,000 prompts the tasks are found
    on a random part, and each other prompt goes with its nearest ones.
    """

    def __init__(
        self,
        n_tasks: int | None = None,
        *,
        min_tasks: int = 1,
        max_tasks: int = 16,
        embedder: str | Path | None = None,
        random_state: int = 0,
    ) -> None:
        self.n_tasks = n_tasks
        self.min_tasks = min_tasks
        self.max_tasks = max_tasks
        self.embedder = embedder
        self.random_state = random_state

    def fit(
        self,
        prompts: Sequence[str],
        answers: Sequence[str | None] | None = None,
        *,
        progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    ) -> Partitioner:
        """Find the tasks; `answers` are the target's, one for each prompt, None where it is not known.

        `progress` wraps the steps of the choice (tqdm does). PartitionError if the prompts are too few or all the
        same, or the bounds cannot be met.
        """
        self._check(prompts, answers)
        with threadpool_limits(1):  # sums in one order, whatever the machine
            self._fit(prompts, answers, progress)
        return self

    def predict(self, prompts: Sequence[str], answers: Sequence[str | None] | None = None) -> np.ndarray:
        """The task of other prompts, by their nearest fitted ones; shape [prompts]. None is called an outlier."""
        with threadpool_limits(1):
            return self._neighbours.predict(self._features.transform(prompts, answers))

    def _check(self, prompts: Sequence[str], answers: Sequence[str | None] | None) -> None:
        num = len(prompts)
        if answers is not None and len(answers) != num:
            raise PartitionError(f"{num} prompts came with {len(answers)} answers; give one for each.")
        if num and len(set(prompts)) == 1:
            raise PartitionError("all prompts are the same, so there is one task and nothing to partition.")
        if num < MIN_PROMPTS:
            raise PartitionError(
                f"{num} different prompts are too few to find tasks in; give at least {MIN_PROMPTS}, better some"
                " hundreds."
            )
        if self.n_tasks is not None and not 1 <= self.n_tasks <= num // 2:
            raise PartitionError(f"{self.n_tasks} tasks cannot be made of {num} prompts; ask for 1 to {num // 2}.")
        if self.n_tasks is None and not 1 <= self.min_tasks <= self.max_tasks:
            raise PartitionError(
                f"the bounds {self.min_tasks} to {self.max_tasks} hold no number of tasks; give 1 <= min <= max."
            )
        if self.n_tasks is None and self.min_tasks > max(num // _PER_TASK, 1):
            raise PartitionError(
                f"at least {self.min_tasks} tasks were asked for, and {num} prompts are enough for"
                f" {num // _PER_TASK}; give more prompts, or a lower bound."
            )

    def _fit(
        self,
        prompts: Sequence[str],
        answers: Sequence[str | None] | None,
        progress: Callable[[Iterable[int]], Iterable[int]],
    ) -> None:
        rng = np.random.default_rng(self.random_state)
        rows = np.arange(len(prompts))
        if len(rows) > _SAMPLE:
            rows = np.sort(rng.choice(rows, _SAMPLE, replace=False))
        self._features = self._new_features()
        chosen = [prompts[row] for row in rows]
        self._features.fit(chosen, None if answers is None else [answers[row] for row in rows])
        known = self._features.known_share(prompts)
        strange = of_strange_words(known, float(np.median(known[rows])))
        groups = self._groups(self._features.embedding, strange[rows], rng, progress)
        self._neighbours = _nearest(self._features.embedding, groups)
        self.embedding_, self.labels_ = self._features.embedding, groups
        if len(rows) < len(prompts):
            self.embedding_ = self._features.transform(prompts, answers)
            self.labels_ = np.where(strange, OUTLIER, self._neighbours.predict(self.embedding_))
            self.labels_[rows] = groups
        self.n_tasks_ = int(groups.max()) + 1
        self.terms_ = top_terms(prompts, self.labels_, self.n_tasks_)
        self.ids_ = task_ids(self.terms_)

    def _new_features(self) -> TextFeatures | SentenceFeatures:
        if self.embedder is None:
            return TextFeatures(self.random_state)
        return SentenceFeatures(self.embedder, self.random_state)

    def _groups(
        self,
        embedding: np.ndarray,
        strange: np.ndarray,
        rng: np.random.Generator,
        progress: Callable[[Iterable[int]], Iterable[int]],
    ) -> np.ndarray:
        """The task of each row: numbered by size, -1 for outliers."""
        inside = np.flatnonzero(~(strange | far_from_all(embedding)))
        if len(inside) < len(embedding) // 2:  # a log of odds and ends: none is odder than the others
            inside = np.arange(len(embedding))
        number = self._number(embedding, inside, rng, progress)
        labels = np.full(len(embedding), OUTLIER)
        labels[inside] = choose.WardTree(embedding[inside]).cut(number)
        return _by_size(labels, 1 if self.n_tasks is not None else least_size(len(embedding)))

    def _number(
        self,
        embedding: np.ndarray,
        inside: np.ndarray,
        rng: np.random.Generator,
        progress: Callable[[Iterable[int]], Iterable[int]],
    ) -> int:
        self.scores_: list[choose.Score] = []
        if self.n_tasks is not None:
            return self.n_tasks
        highest = max(min(self.max_tasks, len(inside) // _PER_TASK), self.min_tasks)
        candidates = range(max(self.min_tasks, 2), highest + 1)
        if not candidates:
            return 1
        features = self._features.features

        def other_view() -> np.ndarray:
            return features.embed(self.random_state, features.random_columns(rng))[inside]

        self.scores_ = choose.judge(embedding[inside], other_view, candidates, rng, progress)
        best = choose.best(self.scores_)
        return 1 if self.min_tasks == 1 and choose.is_one_task(self.scores_) else best.n_tasks


def _by_size(labels: np.ndarray, least: int) -> np.ndarray:
    """The labels again, the largest group first (then the one that comes first); smaller ones are outliers."""
    groups, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    kept = [(-size, start, group) for group, start, size in zip(groups, first, sizes, strict=True) if group != OUTLIER]
    kept = [item for item in kept if -item[0] >= least] or kept
    again = np.full(len(labels), OUTLIER)
    for number, (_, _, group) in enumerate(sorted(kept)):
        again[labels == group] = number
    return again


def _nearest(embedding: np.ndarray, labels: np.ndarray) -> KNeighborsClassifier:
    inside = labels != OUTLIER
    neighbours = KNeighborsClassifier(min(_NEIGHBOURS, int(inside.sum())), weights="distance")
    return neighbours.fit(embedding[inside], labels[inside])
