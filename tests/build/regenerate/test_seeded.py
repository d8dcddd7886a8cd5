"""Sampling by seed on the CPU engine: the same law as softmax, and the seed alone decides."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from sglang_hetero_spec.build.regenerate.seeded import SeededSampler, custom_params, gumbel, serialized


def params(seed: int, place: int, temperature: float = 1.0) -> dict[str, Any]:
    return {**custom_params(seed, temperature), "__req__": SimpleNamespace(output_ids=[0] * place)}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("by", ["seed", "place"])
def test_the_law_is_that_of_softmax(temperature: float, by: str) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, float("-inf"), 0.5])
    number = 6000
    rows = [params(i, 3, temperature) if by == "seed" else params(7, i, temperature) for i in range(number)]
    chosen = SeededSampler()(logits.repeat(number, 1), rows).argmax(-1)
    counts = chosen.bincount(minlength=6)
    expected = torch.softmax(logits / temperature, 0) * number
    assert counts[4] == 0
    seen = [i for i in range(6) if i != 4]
    assert chisquare(counts[seen].numpy(), expected[seen].double().numpy(), sum_check=False).pvalue > 1e-3


def test_the_batch_does_not_matter() -> None:
    logits = torch.randn(5, 100, generator=torch.Generator().manual_seed(0))
    rows = [params(i, 2 * i) for i in range(5)]
    together = SeededSampler()(logits, rows)
    for i in range(5):
        assert torch.equal(SeededSampler()(logits[i : i + 1], rows[i : i + 1])[0], together[i])


def test_the_noise_is_finite_and_large_seeds_differ() -> None:
    noise = gumbel(torch.tensor([2**63 - 1, 2**62, 0]), torch.tensor([0, 0, 0]), 50000)
    assert torch.isfinite(noise).all()
    assert not torch.equal(noise[0], noise[1]) and not torch.equal(noise[1], noise[2])
    assert abs(noise.mean().item() - 0.5772) < 0.02


def test_it_travels_by_reference() -> None:
    found = pickle.loads(bytes.fromhex(json.loads(serialized())["callable"]))
    assert found is SeededSampler
