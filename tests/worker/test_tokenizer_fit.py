"""A model that does not know the tokenizer beside it is seen, one that knows it is not suspected."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from benchmarks.loaded_drafter import MODELS, own_sequences
from sglang_hetero_spec.drafters.tokenizer_fit import TEXT, Fit, tokenizer_fit
from sglang_hetero_spec.vocab.pairing import read_side

pytestmark = pytest.mark.usefixtures("sglang")
NAMES = ["bpe", "sentencepiece", "bytes"]


def fit_of(name: str, seed: int = 0, columns: Sequence[int] | None = None) -> Fit | None:
    """seed: of a permutation of all ids that are text, 0 for none."""
    side = read_side(MODELS / name)
    ids = [*side.begin, *side.encode(TEXT)]
    if seed:
        text = [i for i, piece in enumerate(side.table.pieces) if piece]
        other = dict(zip(text, random.Random(seed).sample(text, len(text)), strict=True))
        ids = [other.get(i, i) for i in ids]
        columns = None if columns is None else [other.get(i, i) for i in columns]
    sequences = own_sequences(name, columns)
    fit = tokenizer_fit(sequences, ids, columns, "cpu")
    assert sequences.row("tokenizer fit") is None
    return fit


@pytest.mark.parametrize("name", NAMES)
def test_its_own_tokenizer(name: str) -> None:
    fit = fit_of(name)
    assert fit is not None and fit.gain > 1.0 and not fit.is_chance


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_tokens_under_other_ids(name: str, seed: int) -> None:
    fit = fit_of(name, seed)
    assert fit is not None and fit.is_chance


@pytest.mark.parametrize("seed", [0, 1])
def test_a_head_of_some_rows_alone(seed: int) -> None:
    fit = fit_of("bpe", seed, columns=range(200, 3500))
    assert fit is not None and fit.is_chance == bool(seed)


def test_where_too_little_is_seen_nothing_is_said() -> None:
    assert fit_of("bpe", columns=range(5)) is None
    assert tokenizer_fit(own_sequences("bpe"), [7, 8] * 50, None, "cpu") is None
    sequences = own_sequences("bpe")
    sequences.open = lambda rid, busy: None
    assert tokenizer_fit(sequences, list(range(300, 400)), None, torch.device("cpu")) is None
