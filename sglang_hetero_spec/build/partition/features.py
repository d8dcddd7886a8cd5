"""What clustering sees of a prompt: its words, how it opens, and its shape; reduced by truncated SVD.

Words say what a prompt is about and what it asks for; the opening, where instructions mostly stand, counts again;
the shape (digits, capitals, brackets, line breaks, length) tells tasks of one subject from each other. Numbers are
folded to one token: which number it is says nothing of the task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

DIMENSIONS = 32
_WEIGHTS = {"words": 1.0, "opening": 0.5, "shape": 0.5}
_ANSWER_WEIGHT = 0.5
_OPENING_WORDS = 12
_RARE, _COMMON = 0.01, 0.9  # shares of the prompts between which a term counts
# Languages without spaces: each character is a word.
_WORD = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|(?:(?![\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])\\w)+")
_DIGITS = re.compile(r"\d+")
_SHAPES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\d",
        r"[A-Z]",
        r"[^\x00-\x7f]",
        r"[()\[\]{}<>=_;`\\/]",
        r"[.,]",
        r"\?",
        r"[\"']",
        r"[:\-]",
        r"\n",
        r"[$%]",
    )
)

Matrix = scipy.sparse.csr_matrix


@dataclass(frozen=True)
class Features:
    """One row for each prompt: blocks of columns, each with its weight."""

    blocks: tuple[Matrix | np.ndarray, ...]
    weights: tuple[float, ...]

    def embed(self, random_state: int, keep: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """Rows of unit length, shape [prompts, up to DIMENSIONS]; `keep` are the columns used of each block."""
        embedding, _ = reduce(self.joined(keep), random_state)
        return embedding

    def random_columns(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Half of each block's columns, at random: another view of the same prompts."""
        chosen = [rng.random(block.shape[1]) < 0.5 for block in self.blocks]
        return [columns if columns.any() else ~columns for columns in chosen]

    def joined(self, keep: Sequence[np.ndarray] | None = None) -> Matrix:
        """All blocks side by side, each scaled by the root of its weight."""
        if keep is None:
            return _join(self.blocks, self.weights)
        return _join(
            [normalize(block[:, columns]) for block, columns in zip(self.blocks, keep, strict=True)], self.weights
        )


class TextFeatures:
    """Learns vocabulary, weights and axes from prompts (and their answers), then embeds others alike."""

    def __init__(self, random_state: int) -> None:
        self._random_state = random_state

    def fit(self, prompts: Sequence[str], answers: Sequence[str | None] | None) -> Features:
        """Features of these prompts; an answer that is None counts as unknown."""
        self._prompt_blocks = _TextBlocks()
        self._answer_blocks = None if answers is None else _TextBlocks()
        blocks = self._prompt_blocks.fit(prompts)
        weights = list(_WEIGHTS.values())
        if answers is not None and self._answer_blocks is not None:
            blocks += _known(self._answer_blocks.fit([answer or "" for answer in answers]), answers)
            weights += [_ANSWER_WEIGHT * weight for weight in _WEIGHTS.values()]
        self._weights = tuple(weights)
        self.features = Features(tuple(blocks), self._weights)
        self.embedding, self._svd = reduce(_join(blocks, self._weights), self._random_state)
        return self.features

    def known_share(self, prompts: Sequence[str]) -> np.ndarray:
        """Of the different words of each prompt, the share that other prompts have too; shape [prompts]."""
        vocabulary = self._prompt_blocks.vocabulary()
        split = [set(words(text)) for text in prompts]
        return np.array([len(own & vocabulary) / max(len(own), 1) for own in split])

    def transform(self, prompts: Sequence[str], answers: Sequence[str | None] | None) -> np.ndarray:
        """The embedding of other prompts, as that of those fitted."""
        blocks = self._prompt_blocks.transform(prompts)
        if self._answer_blocks is not None:
            given = [None] * len(prompts) if answers is None else answers
            blocks += _known(self._answer_blocks.transform([answer or "" for answer in given]), given)
        joined = _join(blocks, self._weights)
        return normalize(joined.toarray() if self._svd is None else self._svd.transform(joined))


def words(text: str) -> list[str]:
    """The words of a text in lower case, numbers folded to `0`."""
    return _WORD.findall(_DIGITS.sub("0", text).lower())


class _TextBlocks:
    """Words, opening and shape of texts."""

    def fit(self, texts: Sequence[str]) -> list[Matrix]:
        split = [words(text) for text in texts]
        self._words, block = _fit_tfidf([" ".join(tokens) for tokens in split], (1, 2))
        self._opening, opening = _fit_tfidf([" ".join(tokens[:_OPENING_WORDS]) for tokens in split], (1, 3))
        shapes = _shapes(texts)
        self._mean, self._spread = shapes.mean(axis=0), np.maximum(shapes.std(axis=0), 0.05)
        return [block, opening, self._scaled(shapes)]

    def transform(self, texts: Sequence[str]) -> list[Matrix]:
        split = [words(text) for text in texts]
        block = _transform(self._words, [" ".join(tokens) for tokens in split])
        opening = _transform(self._opening, [" ".join(tokens[:_OPENING_WORDS]) for tokens in split])
        return [block, opening, self._scaled(_shapes(texts))]

    def vocabulary(self) -> set[str]:
        """The terms that are neither too rare nor too common."""
        return set() if self._words is None else set(self._words.vocabulary_)

    def _scaled(self, shapes: np.ndarray) -> Matrix:
        clipped = np.clip((shapes - self._mean) / self._spread, -3, 3)
        return scipy.sparse.csr_matrix(normalize(clipped))


def _fit_tfidf(texts: list[str], ngrams: tuple[int, int]) -> tuple[TfidfVectorizer | None, Matrix]:
    rare = max(2, int(np.ceil(_RARE * len(texts))))
    for min_df, max_df in ((rare, _COMMON), (1, 1.0)):
        vectorizer = TfidfVectorizer(
            sublinear_tf=True,
            min_df=min_df,
            max_df=max_df,
            ngram_range=ngrams,
            token_pattern=r"\S+",
            lowercase=False,
        )
        try:
            return vectorizer, vectorizer.fit_transform(texts).tocsr()
        except ValueError:  # no term is left
            continue
    return None, _transform(None, texts)


def _transform(vectorizer: TfidfVectorizer | None, texts: Sequence[str]) -> Matrix:
    if vectorizer is None:
        return scipy.sparse.csr_matrix((len(texts), 1))
    return vectorizer.transform(texts).tocsr()


def _shapes(texts: Sequence[str]) -> np.ndarray:
    rows = []
    for text in texts:
        length = max(len(text), 1)
        row = [np.log1p(length), np.log1p(text.count("\n")), np.log1p(len(text.split()))]
        row += [np.sqrt(len(pattern.findall(text)) / length) for pattern in _SHAPES]
        rows.append([*row, float(text.rstrip().endswith("?"))])
    return np.array(rows)


def _known(blocks: list[Matrix], answers: Sequence[str | None]) -> list[Matrix]:
    present = scipy.sparse.diags([float(answer is not None) for answer in answers])
    return [(present @ block).tocsr() for block in blocks]


def _join(blocks: Sequence[Matrix | np.ndarray], weights: Sequence[float]) -> Matrix:
    scaled = [block * np.sqrt(weight) for block, weight in zip(blocks, weights, strict=True)]
    return scipy.sparse.hstack([scipy.sparse.csr_matrix(block) for block in scaled]).tocsr()


def reduce(matrix: Matrix, random_state: int) -> tuple[np.ndarray, Any]:
    """Rows of unit length in few dimensions, and the fitted SVD (None where there was nothing to reduce)."""
    dimensions = min(DIMENSIONS, min(matrix.shape) - 1)
    if dimensions < 2:
        return normalize(matrix.toarray()), None
    svd = TruncatedSVD(dimensions, random_state=random_state)
    with np.errstate(divide="ignore", invalid="ignore"):  # rows that are all alike have no variance
        return normalize(svd.fit_transform(matrix)), svd
