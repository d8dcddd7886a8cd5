"""The router in the server: hashed n-grams times a matrix, softmax. numpy only, and for cold caches (features.py)."""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sglang_hetero_spec.router.excerpt import Excerpt
from sglang_hetero_spec.router.features import FeatureHasher
from sglang_hetero_spec.router.schema import RouterConfig
from sglang_hetero_spec.router.store import RouterWeights, load_router_files

_sum_groups = np.add.reduceat


class Prediction(NamedTuple):
    """The most probable task, its probability, and the scores of all, calibrated, in the order of `classes`."""

    task: str
    confidence: float
    scores: list[float]

    @property
    def probabilities(self) -> np.ndarray:
        """float64 [num_classes]. Routing does without them."""
        scores = np.array(self.scores)
        return np.exp(scores - scores.max()) * self.confidence


class LinearRouter:
    """A calibrated multinomial linear classifier of prompts. Reads only head and tail of a text."""

    def __init__(self, config: RouterConfig, weights: RouterWeights) -> None:
        self.config = config
        self.weights = weights
        self.classes: tuple[str, ...] = config.classes
        self.hasher = FeatureHasher(config.features)
        # float32 [num_buckets, num_classes], the temperature already in it
        self.coefficients = weights.coefficients / np.float32(config.calibration.temperature)

    @classmethod
    def load(cls, path: str | Path) -> LinearRouter:
        """Read router.json and router.safetensors in `path`; RouterError (one sentence) if they are not right."""
        return cls(*load_router_files(Path(path)))

    def predict(self, text: str) -> Prediction:
        """The task of a prompt, from its first and last characters."""
        return self.predict_excerpt(self.hasher.excerpt(text))

    def predict_excerpt(self, excerpt: Excerpt) -> Prediction:
        """The task of a prompt of which the ends are already cut."""
        buckets, num_words, word_value, character_value = self.hasher.sparse(excerpt)
        rows = self.coefficients.take(buckets, 0)
        # Not `@`: BLAS may wake its threads, in the event loop of a server.
        words, characters = _sum_groups(rows, (0, num_words)).tolist()
        scores = [word_value * w + character_value * c for w, c in zip(words, characters, strict=True)]
        highest = max(scores)
        total = 0.0
        for score in scores:
            total += exp(score - highest)
        return Prediction(self.classes[scores.index(highest)], 1 / total, scores)
