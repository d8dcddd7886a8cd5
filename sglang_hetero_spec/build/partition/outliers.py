"""Prompts that belong to no task: far from all others, or in a group too small to be one."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import LocalOutlierFactor

_NEIGHBOURS = 20
# Local outlier factor: how much farther apart a prompt and its neighbours are than those neighbours are.
_FAR = 1.75
# A prompt shares this part of the words that the others share with each other: another language, or noise.
_STRANGE = 0.35
_LEAST_SHARE, _LEAST = 0.005, 3


def far_from_all(embedding: np.ndarray) -> np.ndarray:
    """True where a prompt's neighbourhood is much thinner than that of its neighbours; shape [prompts]."""
    # Prompts that look alike once numbers are folded would make all others seem far away.
    different, number = np.unique(embedding.round(6), axis=0, return_inverse=True)
    if len(different) <= _NEIGHBOURS:
        return np.zeros(len(embedding), dtype=bool)
    factor = -LocalOutlierFactor(n_neighbors=_NEIGHBOURS).fit(different).negative_outlier_factor_
    return (factor > _FAR)[number.ravel()]


def of_strange_words(known_share: np.ndarray, usual: float) -> np.ndarray:
    """True where hardly a word is known from other prompts; `usual` is the median share. Shape [prompts]."""
    return known_share < _STRANGE * usual


def least_size(num_prompts: int) -> int:
    """The fewest prompts that can be a task of a log with so many."""
    return max(_LEAST, int(np.ceil(_LEAST_SHARE * num_prompts)))
