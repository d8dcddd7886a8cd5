"""Temperature scaling and what it is judged by. Offline; numpy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_NUM_BINS = 15
_LOST_ROUTES = 0.01
_HIGHEST_SUGGESTION = 0.5


def softmax(scores: np.ndarray) -> np.ndarray:
    """Row-wise; float64 [num_prompts, num_classes]."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes softmax(scores / temperature) most likely, as Platt smoothed the labels.

    Of a task's n prompts the label counts (n + 1) / (n + 2), the other tasks share the rest: without that, scores
    that separate all tasks would ask for a temperature of 0 and for certainty.
    """
    num_classes = scores.shape[1]
    counts = np.bincount(labels, minlength=num_classes)
    rest = (1 / (counts + 2))[labels]
    targets = np.repeat(rest[:, None] / (num_classes - 1), num_classes, axis=1)
    targets[np.arange(len(labels)), labels] = 1 - rest

    def loss(log_temperature: float) -> float:
        probabilities = softmax(scores / np.exp(log_temperature))
        return float(-(targets * np.log(np.maximum(probabilities, 1e-300))).sum())

    return float(np.exp(_minimise(loss, np.log(1e-3), np.log(1e2))))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over 15 bins of confidence of equal width."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _NUM_BINS).astype(int), _NUM_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=_NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def suggest_min_confidence(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The confidence below which one right route in a hundred lies, and never more than one half."""
    right = probabilities.argmax(axis=1) == labels
    if not right.any():
        return _HIGHEST_SUGGESTION
    lowest = float(np.quantile(probabilities.max(axis=1)[right], _LOST_ROUTES))
    return round(min(_HIGHEST_SUGGESTION, lowest), 3)


def _minimise(function: Callable[[float], float], low: float, high: float) -> float:
    """Golden-section search of a function with one minimum, to 1e-6."""
    ratio = (5**0.5 - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-6:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2
