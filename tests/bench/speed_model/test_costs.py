"""Costs: the known ones are found again, and nothing takes less than no time."""

from __future__ import annotations

import numpy as np
import pytest

from sglang_hetero_spec.bench.speed_model.costs import (
    DRAFT,
    HOST,
    REST,
    TARGET,
    Costs,
    Counts,
    Equation,
    fit_costs,
    summed,
    terms_of,
)


def some_counts(seed: int) -> Counts:
    one = np.random.default_rng(seed).integers(1, 100, 10).astype(float)
    return Counts(*one[:7], drafts={"a": [float(value) for value in one[7:]]})


def test_what_was_put_in_is_found_again() -> None:
    known = Costs(
        {
            TARGET: np.array([0.02, 0.01, 0.001, 1e-6]),
            HOST: np.array([1e-3, 1e-4]),
            REST: np.array([0.01, 2e-4, 1e-3, 0.0]),
            DRAFT + "a": np.array([2e-3, 1e-4, 0.0]),
        }
    )
    equations = [
        Equation((part,), counts, float(known.parts[part] @ counts.of(part)), 1.0)
        for counts in map(some_counts, range(8))
        for part in counts.parts
    ]
    found = fit_costs(equations)
    for part, values in known.parts.items():
        np.testing.assert_allclose(found.parts[part], values, rtol=1e-6, atol=1e-12)


def test_one_clock_for_all_parts_gives_the_sum() -> None:
    counts = [some_counts(seed) for seed in range(12)]
    known = Costs({TARGET: np.array([0.02, 0.0, 0.001, 0.0]), REST: np.array([0.01, 2e-4, 0.0, 0.0])})
    found = fit_costs(Equation((TARGET, REST), one, known.seconds(one), 1.0) for one in counts)
    for one in counts:
        assert found.seconds(one) == pytest.approx(known.seconds(one), rel=1e-6)


def test_no_cost_is_negative() -> None:
    faster = [Equation((HOST,), Counts(steps=1, requests=n), 1.0 / n, 1.0) for n in range(1, 9)]
    assert (fit_costs(faster).parts[HOST] >= 0).all()


def test_errors_are_relative_to_the_scale() -> None:
    """Two clocks that contradict each other: the one whose block was short weighs more."""
    short = Equation((HOST,), Counts(steps=1), 1.0, 1.0)
    long = Equation((HOST,), Counts(steps=100), 200.0, 200.0)
    assert fit_costs([short, long]).parts[HOST][0] == pytest.approx(1.2)  # of (x - 1)^2 + (x / 2 - 1)^2


def test_nothing_seen_costs_nothing_and_is_not_known() -> None:
    found = fit_costs([])
    assert found.seconds(some_counts(0)) == 0.0
    assert not found.knows("a")


def test_sums_and_dimensions() -> None:
    one, two = some_counts(1), some_counts(2)
    both = summed([one, two])
    for part in one.parts:
        assert both.of(part).shape == (len(terms_of(part)),)
        np.testing.assert_allclose(both.of(part), one.of(part) + two.of(part))
    assert one.drafts == some_counts(1).drafts  # summing changed neither
