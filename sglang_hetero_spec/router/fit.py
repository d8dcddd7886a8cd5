"""Fit a router offline: scikit-learn on the very features that the server computes. Never runs in a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse

from sglang_hetero_spec.router.errors import RouterError
from sglang_hetero_spec.router.features import FeatureHasher
from sglang_hetero_spec.router.fit_calibrate import (
    expected_calibration_error,
    fit_temperature,
    softmax,
    suggest_min_confidence,
)
from sglang_hetero_spec.router.fit_linear import deal_folds, feature_matrix, fit_linear_model, router_weights
from sglang_hetero_spec.router.fit_wrappings import WRAPPINGS
from sglang_hetero_spec.router.predict import LinearRouter
from sglang_hetero_spec.router.schema import (
    MAX_CLASSES,
    Calibration,
    FeatureSpec,
    RouterConfig,
    Thresholds,
    is_class_name,
)
from sglang_hetero_spec.router.store import RouterWeights, save_router_files

NUM_FOLDS = 5
_WRAPPED_WEIGHT = 0.5  # a prompt in a chat template teaches half as much as the bare one
_WEIGHT_BYTES = 1_980_000  # the files of a router stay below 2 MB


@dataclass(frozen=True)
class FittedRouter:
    """A router and how good it is on prompts that it was not fitted on.

    `confusion[task][predicted]` counts prompts out of fold; `wrapped_accuracy` is that of the same prompts in a
    chat template; `ece` is the expected calibration error of temperatures fitted without the fold judged.
    `held_out[i]` are the calibrated probabilities of prompt i, by classes, from fits without it (float64
    [num_prompts, num_classes]); `labels[i]` is the number of its class.
    """

    router: LinearRouter
    cross_validated_accuracy: float
    wrapped_accuracy: float
    ece: float
    num_prompts: int
    num_folds: int
    confusion: dict[str, dict[str, int]]
    held_out: np.ndarray
    labels: np.ndarray

    @property
    def suggested_min_confidence(self) -> float:
        """A value for `router.min_confidence` in pool.json."""
        return self.router.config.thresholds.min_confidence

    def with_min_confidence(self, min_confidence: float) -> FittedRouter:
        """The same router, proposing this threshold instead of its own (build/assign/threshold.py)."""
        thresholds = Thresholds(min_confidence=min_confidence)
        config = self.router.config.model_copy(update={"thresholds": thresholds})
        return replace(self, router=LinearRouter(config, self.router.weights))

    def save(self, folder: str | Path) -> None:
        """Write router.json and router.safetensors into `folder`, which is made if it is not there."""
        save_router_files(Path(folder), self.router.config, self.router.weights)


@dataclass(frozen=True)
class _Examples:
    """Every prompt bare and once in a chat template: features, label of each prompt, fold of each prompt."""

    bare: scipy.sparse.csr_matrix
    wrapped: scipy.sparse.csr_matrix
    labels: np.ndarray
    folds: np.ndarray


def fit_router(
    prompts: Sequence[str],
    tasks: Sequence[str],
    *,
    random_state: int = 0,
    features: FeatureSpec | None = None,
) -> FittedRouter:
    """Fit a router on prompts and the task id of each; RouterError if they cannot teach one.

    At least two tasks with two prompts each. Small tasks count more than their share (by the square root of
    how much smaller they are), so that a task of few prompts is still found. The same input gives the same
    router.
    """
    classes, labels = _check_input(prompts, tasks)
    spec = features or FeatureSpec(bucket_bits=_bucket_bits(len(classes)))
    examples = _examples(FeatureHasher(spec), prompts, labels, random_state)
    bare, wrapped = _out_of_fold_scores(examples)
    judged = _judged_probabilities(bare, wrapped, examples)
    calibration = Calibration(
        temperature=_temperature(bare, wrapped, labels),
        cross_validated_accuracy=float((bare.argmax(axis=1) == labels).mean()),
        wrapped_accuracy=float((wrapped.argmax(axis=1) == labels).mean()),
        ece=expected_calibration_error(judged, labels),
        num_prompts=len(labels),
        num_folds=int(examples.folds.max()) + 1,
    )
    config = RouterConfig(
        classes=classes,
        features=spec,
        calibration=calibration,
        thresholds=Thresholds(min_confidence=suggest_min_confidence(judged, labels)),
        weights_sha256="0" * 64,  # set when the files are written
    )
    everything = np.ones(len(labels), dtype=bool)
    return FittedRouter(
        router=LinearRouter(config, _fit(examples, everything)),
        confusion=_confusion(classes, labels, bare.argmax(axis=1)),
        held_out=judged,
        labels=labels,
        **calibration.model_dump(exclude={"temperature"}),
    )


def _check_input(prompts: Sequence[str], tasks: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    if len(prompts) != len(tasks):
        raise RouterError(f"{len(prompts)} prompts came with {len(tasks)} tasks; give one task for each prompt.")
    for index, (prompt, task) in enumerate(zip(prompts, tasks, strict=True)):
        if not isinstance(prompt, str):
            raise RouterError(f"prompt {index} is {type(prompt).__name__}, not text; give its text.")
        if not is_class_name(task):
            raise RouterError(
                f"the task of prompt {index} is not an id; give 1 to 64 letters, digits, dots, dashes or"
                " underscores, the first a letter or digit."
            )
    counts = Counter(tasks)
    classes = tuple(sorted(counts))
    if len(classes) < 2:
        raise RouterError(
            f"a router chooses between tasks, and these {len(prompts)} prompts have {len(classes)};"
            " give prompts of at least two tasks, or make the pool without a router."
        )
    if len(classes) > MAX_CLASSES:
        raise RouterError(f"{len(classes)} tasks are too many for one router; merge them to {MAX_CLASSES}.")
    rare = min(classes, key=lambda name: counts[name])
    if counts[rare] < 2:
        raise RouterError(f"task `{rare}` has one prompt; give at least two prompts of every task.")
    position = {name: index for index, name in enumerate(classes)}
    return classes, np.array([position[task] for task in tasks], dtype=np.int64)


def _bucket_bits(num_classes: int) -> int:
    """The largest table, 2 x 2**14 rows at most, whose file stays below 2 MB."""
    return next(bits for bits in range(14, 6, -1) if (2 << bits) * num_classes * 4 <= _WEIGHT_BYTES)


def _examples(hasher: FeatureHasher, prompts: Sequence[str], labels: np.ndarray, random_state: int) -> _Examples:
    chosen = np.random.default_rng(random_state).integers(0, len(WRAPPINGS), len(prompts))
    wrapped = ["".join((WRAPPINGS[i][0], prompt, WRAPPINGS[i][1])) for i, prompt in zip(chosen, prompts, strict=True)]
    return _Examples(
        bare=feature_matrix(hasher, prompts),
        wrapped=feature_matrix(hasher, wrapped),
        labels=labels,
        folds=deal_folds(labels, NUM_FOLDS, random_state),
    )


def _fit(examples: _Examples, train: np.ndarray) -> RouterWeights:
    labels = examples.labels[train]
    counts = np.bincount(labels)
    weights = np.sqrt(counts.max() / counts)[labels]
    weights /= weights.mean()
    model = fit_linear_model(
        scipy.sparse.vstack([examples.bare[train], examples.wrapped[train]], format="csr"),
        np.concatenate([labels, labels]),
        np.concatenate([weights, weights * _WRAPPED_WEIGHT]),
    )
    return router_weights(model)


def _out_of_fold_scores(examples: _Examples) -> tuple[np.ndarray, np.ndarray]:
    """Scores [num_prompts, num_classes] of the bare and of the wrapped prompts."""
    shape = (len(examples.labels), int(examples.labels.max()) + 1)
    bare, wrapped = np.empty(shape), np.empty(shape)
    for fold in range(int(examples.folds.max()) + 1):
        test = examples.folds == fold
        weights = _fit(examples, ~test)
        bare[test] = examples.bare[test] @ weights.coefficients
        wrapped[test] = examples.wrapped[test] @ weights.coefficients
    return bare, wrapped


def _temperature(bare: np.ndarray, wrapped: np.ndarray, labels: np.ndarray) -> float:
    return fit_temperature(np.concatenate([bare, wrapped]), np.concatenate([labels, labels]))


def _judged_probabilities(bare: np.ndarray, wrapped: np.ndarray, examples: _Examples) -> np.ndarray:
    """Calibrated probabilities of every bare prompt, by a temperature that its own fold had no part in."""
    probabilities = np.empty_like(bare)
    for fold in range(int(examples.folds.max()) + 1):
        test = examples.folds == fold
        temperature = _temperature(bare[~test], wrapped[~test], examples.labels[~test])
        probabilities[test] = softmax(bare[test] / temperature)
    return probabilities


def _confusion(classes: tuple[str, ...], labels: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, int]]:
    counts = Counter(zip(labels.tolist(), predicted.tolist(), strict=True))
    return {
        name: {other: counts[i, j] for j, other in enumerate(classes) if counts[i, j]} for i, name in enumerate(classes)
    }
