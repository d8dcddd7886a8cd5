"""corpus.safetensors: `tokens` [n] int32, ids of the target, and `starts` [m] int64, where each text begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_whole
from sglang_hetero_spec.ngram.matches import Tokens
from sglang_hetero_spec.pool.entries.ngram import CORPUS_NAME


def read_corpus(folder: Path, num_ids: int) -> list[Tokens]:
    """The texts of a corpus that was checked when the pool was loaded, then perhaps without the target's num_ids."""
    tensors = load_file(folder / CORPUS_NAME)
    tokens, starts = tensors["tokens"], tensors["starts"]
    if int(tokens.max()) >= num_ids:
        raise HeteroError(
            f"{folder / CORPUS_NAME} holds the token id {int(tokens.max())}, and the target has {num_ids:,}; make it"
            " again with `hetero-spec ngram-corpus`, with this target."
        )
    return np.split(tokens, starts[1:])


def write_corpus(folder: Path, texts: Sequence[Sequence[int]]) -> Path:
    """Texts in the target's ids, none of them empty. The file appears whole or not at all."""
    lens = [len(text) for text in texts]
    starts = np.concatenate(([0], np.cumsum(lens)[:-1])).astype(np.int64)
    tokens = np.fromiter((token for text in texts for token in text), np.int32, sum(lens))
    path = folder / CORPUS_NAME
    write_whole(path, [save({"tokens": tokens, "starts": starts})], HeteroError)
    return path
