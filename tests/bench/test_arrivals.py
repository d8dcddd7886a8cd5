"""Settings and their names; arrivals that anybody can draw again."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sglang_hetero_spec.bench.arrivals import Setting, poisson, settings_of


def test_names_and_order() -> None:
    settings = settings_of((4, 1, 4), (2.5, 10.0))
    assert [setting.name for setting in settings] == ["c4", "c1", "r2.5", "r10"]
    assert [setting.busiest(3) for setting in settings] == [3, 1, 3, 3]
    assert [setting.busiest(500) for setting in settings] == [4, 1, 48, 48]


def test_the_same_seed_is_the_same_arrivals() -> None:
    assert poisson(2.0, 20, "0/1") == poisson(2.0, 20, "0/1")
    assert poisson(2.0, 20, "0/1") != poisson(2.0, 20, "0/2")


@pytest.mark.parametrize("rate", [0.5, 8.0])
def test_as_many_a_second_as_asked_for(rate: float) -> None:
    times = poisson(rate, 4001, "7")
    assert len(times) == 4001 and times[0] == 0 and all(a < b for a, b in pairwise(times))
    gaps = [b - a for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / rate, rel=0.06)
    # Exponential: the standard deviation is the mean.
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.1)


def test_one_request() -> None:
    assert poisson(1.0, 1, "0") == [0.0]
    assert Setting(rate=0.5).words == "0.5 requests a second"
