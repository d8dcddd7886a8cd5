"""Where each prompt lies on the map: like prompts near each other. Computed from the prompts, the same each time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sglang_hetero_spec.build.prompts import Prompt

MOST_POINTS = 1200
_MOST_CHARS = 4000
_DIMENSIONS = 40
_FEATURES = 20_000
_FEW = 8


def sample(prompts: Sequence[Prompt], most: int = MOST_POINTS) -> list[Prompt]:
    """At most `most` prompts, evenly over the file's order within each task, every task in its proportion."""
    if len(prompts) <= most:
        return list(prompts)
    groups: dict[str | None, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt.task, []).append(place)
    kept: list[int] = []
    for places in groups.values():
        count = max(1, len(places) * most // len(prompts))
        kept += [places[place * len(places) // count] for place in range(count)]
    return [prompts[place] for place in sorted(kept)]


def coordinates(texts: Sequence[str], random_state: int = 0) -> np.ndarray:
    """A point for each text, float64 [len(texts), 2] within 0 to 1: TF-IDF, truncated SVD, then t-SNE."""
    vectors = _vectors(texts, random_state)
    if vectors is None:
        flat = np.full((len(texts), 2), 0.5)
        flat[:, 0] = np.linspace(0, 1, len(texts) + 2)[1:-1]
        return flat
    flat = _flat(vectors) if len(texts) < _FEW else _neighbours(vectors, random_state)
    low, high = flat.min(axis=0), flat.max(axis=0)
    return np.where(high > low, (flat - low) / np.where(high > low, high - low, 1.0), 0.5)


def _vectors(texts: Sequence[str], random_state: int) -> np.ndarray | None:
    """Rows of unit length, or None where the texts have nothing that tells them apart."""
    from scipy.sparse import hstack
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    heads = [text[:_MOST_CHARS] for text in texts]
    if len(set(heads)) < 2:
        return None
    blocks = []
    common = {"sublinear_tf": True, "max_features": _FEATURES}
    for vectorizer in (
        TfidfVectorizer(token_pattern=r"(?u)\w+", ngram_range=(1, 2), **common),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **common),
    ):
        try:
            blocks.append(vectorizer.fit_transform(heads))
        except ValueError:  # not one word
            continue
    if not blocks:
        return None
    matrix = hstack(blocks).tocsr()
    dimensions = min(_DIMENSIONS, min(matrix.shape) - 1)
    if dimensions < 1:
        return None
    return normalize(TruncatedSVD(dimensions, random_state=random_state).fit_transform(matrix))


def _neighbours(vectors: np.ndarray, random_state: int) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # The order in which threads add up would change the picture from run to run.
    with threadpool_limits(1):
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init=0.01 * _flat(vectors), random_state=random_state, n_jobs=1)
        found: np.ndarray = tsne.fit_transform(vectors.astype(np.float64)).astype(np.float64)
    return found if np.isfinite(found).all() else _flat(vectors)


def _flat(vectors: np.ndarray) -> np.ndarray:
    """The first two axes, the second 0 where there is one only."""
    return np.hstack([vectors, np.zeros((len(vectors), 1))])[:, :2]
