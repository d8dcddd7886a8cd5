"""Intervals: they are scipy's where scipy has them, and they cover what they should about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sglang_hetero_spec.bench.results import bootstrap
from sglang_hetero_spec.bench.results.bootstrap import UNKNOWN


def sums(num_prompts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, steps) by prompt."""
    generator = np.random.default_rng(seed)
    steps = generator.integers(5, 40, num_prompts).astype(float)
    return steps * generator.normal(3, 0.6, num_prompts), steps


def test_of_a_quotient_it_is_scipys() -> None:
    over, under = sums(40, 1)
    mine = bootstrap.of_quotient(over, under, seed=3)
    theirs = stats.bootstrap(
        (over, under),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True, vectorized=True, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), rel=0.01)


def test_of_a_skewed_quotient_it_is_scipys_too() -> None:
    """Few prompts hold most of the tokens: here BCa and plain percentiles are far apart."""
    generator = np.random.default_rng(11)
    over, under = generator.pareto(2.2, 25), np.ones(25)
    mine = bootstrap.of_quotient(over, under, seed=1)
    options = {"n_resamples": 20_000, "rng": np.random.default_rng(0)}
    theirs = stats.bootstrap((over,), np.mean, method="BCa", **options).confidence_interval
    plain = stats.bootstrap((over,), np.mean, method="percentile", **options).confidence_interval
    assert mine.low == pytest.approx(theirs.low, rel=0.04)
    assert abs(mine.high - theirs.high) < 0.6 * abs(plain.high - theirs.high)


def test_of_a_ratio_of_arms_it_is_paired() -> None:
    """Prompts differ much, arms on one prompt little: drawn apart, the interval would be many times as wide."""
    over, under = sums(40, 2)
    theirs = over * np.random.default_rng(5).normal(0.8, 0.01, 40)
    paired = bootstrap.of_ratio((over, under), (theirs, under), seed=0)
    alone = bootstrap.of_quotient(over, under, seed=0)
    assert paired.low < over.sum() / theirs.sum() < paired.high
    assert (paired.high - paired.low) / 1.25 < 0.2 * (alone.high - alone.low) / 3


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 300 samples of 30 prompts; the quotient of the sums tends to 3. Exactly 95% would give 285 +- 4."""
    hits = 0
    for seed in range(300):
        found = bootstrap.of_quotient(*sums(30, 1000 + seed), seed=seed % 5)
        hits += found.low <= 3 <= found.high
    assert 270 <= hits <= 297


def test_of_the_median_it_covers_too_with_repetitions_kept_together() -> None:
    """Five times of one prompt are nearly one: as if they were five prompts, the interval would be far too narrow."""
    hits = 0
    for seed in range(150):
        generator = np.random.default_rng(seed)
        prompts = np.repeat(generator.normal(10, 2, 31), 5)
        times = prompts + generator.normal(0, 0.01, 155)
        found = bootstrap.of_median(times, np.repeat(np.arange(31), 5), 31, seed=1)
        hits += found.low <= 10 <= found.high
    assert 135 <= hits <= 149


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly_so() -> None:
    over, under = sums(25, 4)
    first, again, other = (bootstrap.of_quotient(over, under, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert (first.low, first.high) == pytest.approx((other.low, other.high), rel=0.03)


def test_over_repetitions_it_is_students() -> None:
    values = [10.0, 11.0, 12.5]
    logs = np.log(values)
    low, high = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    found = bootstrap.over_repetitions(values)
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)))


@pytest.mark.parametrize("values", [[], [3.0], [3.0, 4.0], [3.0, None, 4.0], [3.0, 0.0, 4.0]])
def test_what_cannot_be_said_is_not_said(values: list[float | None]) -> None:
    assert bootstrap.over_repetitions(values) == UNKNOWN


def test_one_prompt_unknown_counts_and_nothing_counted_have_no_interval() -> None:
    assert bootstrap.of_quotient(np.array([3.0]), np.array([1.0]), 0) == UNKNOWN
    assert bootstrap.of_quotient(np.array([3.0, np.nan]), np.ones(2), 0) == UNKNOWN
    assert bootstrap.of_quotient(np.ones(3), np.zeros(3), 0) == UNKNOWN
    assert bootstrap.of_median(np.array([1.0]), np.array([0]), 1, 0) == UNKNOWN


def test_a_prompt_without_steps_is_no_division_by_zero() -> None:
    found = bootstrap.of_quotient(np.array([1.0, 30, 31, 29]), np.array([0.0, 10, 10, 10]), 0)
    assert 2.5 < found.low <= 3.1 <= found.high < 3.6


def test_equal_prompts_have_an_interval_of_one_point() -> None:
    found = bootstrap.of_quotient(np.full(6, 30.0), np.full(6, 10.0), 0)
    assert (found.low, found.high) == (3.0, 3.0)
