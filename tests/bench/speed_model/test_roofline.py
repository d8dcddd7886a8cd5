"""The roofline: bytes, operations, monotonicities, and what others have published."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sglang_hetero_spec.bench.speed_model.published import FIGURES, compared, speeds
from sglang_hetero_spec.bench.speed_model.roofline import (
    DRAFTERS,
    H100,
    LLAMA_8B,
    LLAMA_70B,
    LLAMA_70B_FP8,
    Efficiency,
    Ranges,
    fits,
    forward_seconds,
)

IDEAL = Ranges((1.0, 1.0), (1.0, 1.0), *[(0.0, 0.0)] * 7)
DRAWS = Efficiency.draw(50)


def ideal(shape=LLAMA_8B, where=H100, tokens=1.0, requests=1.0, context=0.0) -> float:
    return float(forward_seconds(shape, where, tokens, requests, context, Efficiency.draw(1, ranges=IDEAL))[0])


def test_few_tokens_take_the_time_of_their_bytes() -> None:
    assert ideal() == pytest.approx((8.03e9 - 0.525e9) * 2 / 3.35e12)
    assert ideal(tokens=64) == ideal()


def test_many_tokens_take_the_time_of_their_operations() -> None:
    assert ideal(tokens=4096) == pytest.approx(4096 * 2 * (8.03e9 - 0.525e9) / 989e12)


def test_kv_of_llamas() -> None:
    assert LLAMA_8B.kv_bytes == 131_072
    assert LLAMA_70B.kv_bytes == 327_680
    assert ideal(requests=64, context=1000, tokens=64) == pytest.approx(ideal() + 64_000 * 131_072 / 3.35e12)


def test_fp8_halves_the_bytes_of_weights_only() -> None:
    assert LLAMA_70B_FP8.weights * 2 == LLAMA_70B.weights
    assert LLAMA_70B_FP8.kv_bytes == LLAMA_70B.kv_bytes


def test_memory() -> None:
    assert fits(LLAMA_8B, H100, 64, 1024)
    assert not fits(LLAMA_70B, H100, 1, 1024)
    assert not fits(LLAMA_70B, H100.times(2), 32, 768)
    assert fits(LLAMA_70B, H100.times(4), 64, 1024)
    assert fits(LLAMA_70B_FP8, H100.times(2), 64, 1024)


@pytest.mark.parametrize("tokens", [1, 8, 320, 4096])
@pytest.mark.parametrize("shape", [LLAMA_8B, LLAMA_70B, DRAFTERS["1B"]])
def test_monotonicities(shape, tokens: int) -> None:
    """Never slower with more bandwidth, more arithmetic or a graph; never faster with more tokens or context."""
    one = forward_seconds(shape, H100, tokens, tokens, 500, DRAWS)
    assert one.shape == (50,)
    more = dataclasses.replace(H100, bandwidth=2 * H100.bandwidth)
    assert (forward_seconds(shape, more, tokens, tokens, 500, DRAWS) <= one).all()
    more = dataclasses.replace(H100, arithmetic=2 * H100.arithmetic)
    assert (forward_seconds(shape, more, tokens, tokens, 500, DRAWS) <= one).all()
    assert (forward_seconds(shape, H100, tokens + 1, tokens, 500, DRAWS) >= one).all()
    assert (forward_seconds(shape, H100, tokens, tokens, 600, DRAWS) >= one).all()
    assert (forward_seconds(shape, H100, tokens, tokens, 500, DRAWS.eager) >= one).all()


def test_several_accelerators_pay_for_talking() -> None:
    four = forward_seconds(LLAMA_70B, H100.times(4), 8, 8, 500, DRAWS)
    free = dataclasses.replace(DRAWS, all_reduce=0 * DRAWS.all_reduce)
    assert (forward_seconds(LLAMA_70B, H100.times(4), 8, 8, 500, free) < four).all()
    assert (four < forward_seconds(LLAMA_70B, H100, 8, 8, 500, DRAWS)).all()


def test_the_same_seed_draws_the_same() -> None:
    np.testing.assert_array_equal(Efficiency.draw(5).bandwidth, Efficiency.draw(5).bandwidth)
    for name, (low, high) in vars(Ranges()).items():
        drawn = getattr(Efficiency.draw(500), name)
        assert low <= drawn.min() < drawn.max() <= high


def test_the_published_speed_of_an_8b_target_on_one_h100_is_inside() -> None:
    """EAGLE-3's paper, SGLang 0.4.4, batch 1: 158.34 tokens/s."""
    row = compared()[0]
    assert (row["published"], row["requests"], row["drafter"], row["where"]) == (158.34, 1, None, "H100 SXM")
    assert row["inside"]
    assert row["high"] < 1.5 * row["low"], "a range that holds everything says nothing"


def test_published_speeds_without_a_drafter_are_inside_where_the_hardware_allows_them() -> None:
    inside = {(row["where"], row["drafter"]): row["inside"] for row in compared()}
    assert inside["H100 NVL", None]
    assert inside["A100 80G PCIe", None]
    assert not inside["RTX A6000", None]


def test_a_drafter_that_is_never_right_is_slower_than_none() -> None:
    none, drafted = FIGURES[1], dataclasses.replace(FIGURES[2], accept_length=1.0)
    assert (speeds(drafted, DRAWS) < speeds(none, DRAWS)).all()
