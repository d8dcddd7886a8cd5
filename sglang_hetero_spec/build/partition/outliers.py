"""Prompts that belong to no task: far from all others, or in a group too small to be one."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import LocalOutlierFactor

_NEIGHBOURS = 20
# Local outlier factor: how much farther apart a prompt and its neighbours are than those neighbours are.
_FAR = 1.75
_LEAST_SHARE, _LEAST = 0.005, 3


def far_from_all(embedding: np.ndarray) -> np.ndarray:
    """True where a prompt's neighbourhood is much thinner than that of its neighbours; shape [prompts]."""
    if len(embedding) <= _NEIGHBOURS:
        return np.zeros(len(embedding), dtype=bool)
    found = LocalOutlierFactor(n_neighbors=_NEIGHBOURS).fit(embedding)
    return (found.negative_outlier_factor_ < -_FAR) | ~embedding.any(axis=1)


def least_size(num_prompts: int) -> int:
    """The fewest prompts that can be a task of a log with so many."""
    return max(_LEAST, int(np.ceil(_LEAST_SHARE * num_prompts)))
