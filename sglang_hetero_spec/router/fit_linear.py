"""The pieces of a fit: feature matrix, folds, logistic regression, and its coefficients for the server."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from sklearn.linear_model import LogisticRegression

from sglang_hetero_spec.router.features import FeatureHasher
from sglang_hetero_spec.router.store import RouterWeights

_INVERSE_REGULARISATION = 10.0  # chosen on Spec-Bench by cross-validation; 10 and 100 differ by 0.001
_MAX_ITERATIONS = 500


def feature_matrix(hasher: FeatureHasher, prompts: Sequence[str]) -> scipy.sparse.csr_matrix:
    """float32 [num_prompts, num_buckets]; each row is what the server computes for that prompt."""
    vectors = [hasher.vector(hasher.excerpt(prompt)) for prompt in prompts]
    ends = np.cumsum([0, *(len(buckets) for buckets, _ in vectors)])
    columns = np.concatenate([buckets for buckets, _ in vectors])
    values = np.concatenate([values for _, values in vectors])
    return scipy.sparse.csr_matrix((values, columns, ends), shape=(len(prompts), hasher.num_buckets))


def fit_linear_model(matrix: scipy.sparse.csr_matrix, labels: np.ndarray, weights: np.ndarray) -> LogisticRegression:
    """Logistic regression without intercept; labels are 0..num_classes-1, each of them there."""
    model = LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=_MAX_ITERATIONS, fit_intercept=False)
    return model.fit(matrix, labels, sample_weight=weights)


def router_weights(model: LogisticRegression) -> RouterWeights:
    """The model's coefficients as the server wants them."""
    coefficients = model.coef_
    if len(coefficients) == 1:  # two classes: scikit-learn keeps the difference of their scores
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
    return RouterWeights(np.ascontiguousarray(coefficients.T, dtype=np.float32))


def deal_folds(labels: np.ndarray, num_folds: int, random_state: int) -> np.ndarray:
    """A fold (int64 [num_prompts]) for every prompt, each task dealt out like cards.

    A task with two prompts or more lies in at least two folds, so that no training part lacks it.
    """
    generator = np.random.default_rng(random_state)
    num_folds = min(num_folds, int(np.bincount(labels).max()))
    folds = np.empty(len(labels), dtype=np.int64)
    dealt = 0
    for label in range(int(labels.max()) + 1):
        members = generator.permutation(np.flatnonzero(labels == label))
        folds[members] = (dealt + np.arange(len(members))) % num_folds
        dealt += len(members)
    return folds
