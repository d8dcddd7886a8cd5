"""Embeddings by a sentence-transformers model, where the user gives one by path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.preprocessing import normalize

from sglang_hetero_spec.build.partition.errors import PartitionError
from sglang_hetero_spec.build.partition.features import Features, reduce

_ANSWER_WEIGHT = 0.5


class SentenceFeatures:
    """As `TextFeatures`, with the vectors of a local sentence-transformers model for columns."""

    def __init__(self, path: str | Path, random_state: int) -> None:
        self._model = _load(Path(path))
        self._random_state = random_state

    def fit(self, prompts: Sequence[str], answers: Sequence[str | None] | None) -> Features:
        """Features of these prompts; an answer that is None counts as unknown."""
        self._with_answers = answers is not None
        blocks = self._blocks(prompts, answers)
        self._center = [block.mean(axis=0) for block in blocks]
        self.features = Features(tuple(self._centered(blocks)), (1.0, _ANSWER_WEIGHT)[: len(blocks)])
        self.embedding, self._svd = reduce(self.features.joined(), self._random_state)
        return self.features

    def known_share(self, prompts: Sequence[str]) -> np.ndarray:
        """A model knows every word; shape [prompts]."""
        return np.ones(len(prompts))

    def transform(self, prompts: Sequence[str], answers: Sequence[str | None] | None) -> np.ndarray:
        """The embedding of other prompts, as that of those fitted."""
        if self._with_answers and answers is None:
            answers = [None] * len(prompts)
        blocks = self._centered(self._blocks(prompts, answers))
        joined = Features(tuple(blocks), (1.0, _ANSWER_WEIGHT)[: len(blocks)]).joined()
        return normalize(joined if self._svd is None else self._svd.transform(joined))

    def _blocks(self, prompts: Sequence[str], answers: Sequence[str | None] | None) -> list[np.ndarray]:
        blocks = [self._encode(prompts)]
        if self._with_answers and answers is not None:
            known = np.array([answer is not None for answer in answers], dtype=float)
            blocks.append(self._encode([answer or "" for answer in answers]) * known[:, None])
        return blocks

    def _centered(self, blocks: list[np.ndarray]) -> list[np.ndarray]:
        return [normalize(block - center) for block, center in zip(blocks, self._center, strict=True)]

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        found = self._model.encode(list(texts), show_progress_bar=False, convert_to_numpy=True)
        vectors = np.asarray(found, dtype=np.float64)
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise PartitionError("the embedder gave numbers that are not finite; use another model or the default.")
        return vectors


def _load(path: Path):  # type: ignore[no-untyped-def]
    if not path.is_dir():
        raise PartitionError(f"--embedder {path} is not a folder; give the folder of a sentence-transformers model.")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise PartitionError(
            "--embedder needs the package sentence-transformers, which is not installed; `pip install"
            " sentence-transformers`, or leave --embedder out."
        ) from None
    try:
        return SentenceTransformer(str(path), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise PartitionError(
            f"--embedder {path} does not load as a sentence-transformers model ({reason}); check the folder."
        ) from None
