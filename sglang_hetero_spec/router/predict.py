"""The router in the server: hashed n-grams times a matrix, softmax. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from pathlib import Path

import numpy as np

from sglang_hetero_spec.router.excerpt import Excerpt
from sglang_hetero_spec.router.features import FeatureHasher
from sglang_hetero_spec.router.schema import RouterConfig
from sglang_hetero_spec.router.store import RouterWeights, load_router_files


@dataclass(frozen=True)
class Prediction:
    """The most probable task; `probabilities` (float64 [num_classes]) are in the order of `classes`."""

    task: str
    confidence: float
    probabilities: np.ndarray


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
        found = self.hasher.sparse(excerpt)
        rows = self.coefficients.take(found.buckets, axis=0)
        # Not `@`: BLAS may wake its threads, in the event loop of a server.
        words, characters = np.add.reduceat(rows, (0, found.num_words), axis=0).tolist()
        scores = [
            found.word_value * word + found.character_value * character
            for word, character in zip(words, characters, strict=True)
        ]
        probabilities = _softmax(scores)
        confidence = max(probabilities)
        task = self.classes[probabilities.index(confidence)]
        return Prediction(task, confidence, np.array(probabilities))


def _softmax(scores: list[float]) -> list[float]:
    """Plain Python: of so few numbers cheaper than four calls of numpy."""
    highest = max(scores)
    exponentials = [exp(score - highest) for score in scores]
    total = sum(exponentials)
    return [value / total for value in exponentials]
