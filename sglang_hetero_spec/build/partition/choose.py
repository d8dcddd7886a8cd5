"""How many tasks: Ward's tree cut at every number, judged by stability and silhouette.

A number of tasks is good when the same groups are found again from half of the features (a real task shows in any
half), from a part of the prompts, and when the groups are apart. The smallest number about as good as the best is
taken: over-fine tasks cost a drafter each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score, silhouette_score

NUM_VIEWS = 16
NUM_SUBSAMPLES = 10
_SUBSAMPLE = 0.7
_ABOUT_AS_GOOD = 0.99
_FOUND_AGAIN = 0.6


@dataclass(frozen=True)
class Score:
    """How good a number of tasks is.

    `view_stability` and `sample_stability` are mean adjusted Rand indices between the groups of all prompts and
    those from half of the features, or from 70% of the prompts; `silhouette` is that of the cosine embedding.
    """

    n_tasks: int
    view_stability: float
    sample_stability: float
    silhouette: float

    @property
    def value(self) -> float:
        """Stability first: the silhouette alone would rather have every wording a task."""
        return max(self.view_stability, 0) * max(self.sample_stability, 0) * max(self.silhouette, 0) ** 0.5


class WardTree:
    """Ward's hierarchy over the rows of an embedding, cut into any number of groups."""

    def __init__(self, embedding: np.ndarray) -> None:
        self._tree = linkage(embedding, method="ward")

    def cut(self, n_groups: int) -> np.ndarray:
        """The group of each row, numbered from 0 in the order of the rows."""
        groups = fcluster(self._tree, n_groups, criterion="maxclust")
        _, first, number = np.unique(groups, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[number]


def judge(
    embedding: np.ndarray,
    other_view: Callable[[], np.ndarray],
    candidates: Sequence[int],
    rng: np.random.Generator,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Score]:
    """A score for each candidate; `other_view` gives another embedding of the same rows at each call."""
    tree = WardTree(embedding)
    groups = {k: tree.cut(k) for k in candidates}
    views: dict[int, list[float]] = {k: [] for k in candidates}
    samples: dict[int, list[float]] = {k: [] for k in candidates}
    for step in progress(range(NUM_VIEWS + NUM_SUBSAMPLES)):
        if step < NUM_VIEWS:
            rows = np.arange(len(embedding))
            again, kept = WardTree(other_view()), views
        else:
            size = max(int(_SUBSAMPLE * len(embedding)), max(candidates))
            rows = np.sort(rng.choice(len(embedding), size, replace=False))
            again, kept = WardTree(embedding[rows]), samples
        for k in candidates:
            kept[k].append(adjusted_rand_score(groups[k][rows], again.cut(k)))
    return [
        Score(k, float(np.mean(views[k])), float(np.mean(samples[k])), _silhouette(embedding, groups[k]))
        for k in candidates
    ]


def _silhouette(embedding: np.ndarray, groups: np.ndarray) -> float:
    if groups.max() == 0:  # rows that are all alike cannot be cut
        return 0.0
    return float(silhouette_score(embedding, groups))


def best(scores: Sequence[Score]) -> Score:
    """The smallest number whose score is about that of the best."""
    top = max(score.value for score in scores)
    return next(score for score in scores if score.value >= _ABOUT_AS_GOOD * top)


def is_one_task(scores: Sequence[Score]) -> bool:
    """Whether no number of groups is found again well enough to speak of several tasks."""
    return max(min(score.view_stability, score.sample_stability) for score in scores) < _FOUND_AGAIN
