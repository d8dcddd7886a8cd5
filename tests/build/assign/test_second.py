"""`second_below` against every threshold tried by hand, and cases whose answer is plain."""

from __future__ import annotations

import numpy as np
import pytest

from sglang_hetero_spec.build.assign.assignment import assign
from sglang_hetero_spec.build.assign.second import PairCosts, choose_second, pair_costs
from sglang_hetero_spec.build.profile.model import SpeedModel
from tests.build.assign.profiles import record

SHARP = np.array([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98]])
TRAFFIC = np.ones(3)


def costs(alone: np.ndarray, extra: float) -> PairCosts:
    """Two drafters are as quick as the better one, and `extra` of a second per token beside."""
    together = np.minimum(alone[:, :, None], alone[:, None, :]) + extra
    for drafter in range(alone.shape[1]):
        together[:, drafter, drafter] = alone[:, drafter]
    return PairCosts(alone, together)


def by_hand(below: float, probabilities: np.ndarray, labels: np.ndarray, prices: PairCosts, least: float) -> float:
    """Tokens per second, prompt by prompt; all tasks have the same share of the tokens."""
    counts = np.bincount(labels, minlength=3)
    weights = 1 / counts[labels] / len(set(labels.tolist()))
    spent = 0.0
    for row, label, weight in zip(probabilities, labels, weights, strict=True):
        ranked = np.argsort(-row, kind="stable")
        one, other = (ranked[0], ranked[1]) if row.max() >= least else (3, ranked[0])
        price = prices.together[label, one, other] if row.max() < below else prices.alone[label, one]
        spent += weight * price
    return 1 / spent


def test_no_threshold_is_better_than_the_chosen_one() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(3, 30))
        probabilities = rng.dirichlet([0.6] * 3, size=count).round(2) + 0.01
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        labels = rng.integers(0, 3, size=count)
        prices = costs(rng.uniform(0.5, 2.0, (3, 4)), extra=rng.uniform(0, 0.6))
        least = float(rng.choice([0.0, 0.5, 0.8]))
        found = choose_second(probabilities, labels, prices, least, TRAFFIC)
        edges = probabilities.max(axis=1)
        tried = [by_hand(below, probabilities, labels, prices, least) for below in (0.0, *edges, *(edges + 1e-9))]
        assert found.tokens_per_second == pytest.approx(max(tried), rel=1e-9), f"seed {seed}"
        assert found.alone_tokens_per_second == pytest.approx(tried[0], rel=1e-9)
        below = 0.0 if found.second_below is None else found.second_below
        assert by_hand(below, probabilities, labels, prices, least) == pytest.approx(max(tried), rel=2e-3)


def test_a_sure_router_needs_no_second_drafter() -> None:
    alone = 2 - np.eye(3, 4)
    assert choose_second(SHARP, np.arange(3), costs(alone, 0.2), 0.0, TRAFFIC).second_below is None


def test_where_the_router_errs_the_second_one_pays() -> None:
    """The unsure prompts are those of the next task; a second drafter costs a fifth, a wrong one the double."""
    unsure = np.array([[0.5, 0.4, 0.1], [0.1, 0.5, 0.4], [0.4, 0.1, 0.5]])
    probabilities, labels = np.concatenate([SHARP, unsure]), np.array([0, 1, 2, 1, 2, 0])
    found = choose_second(probabilities, labels, costs(2 - np.eye(3, 4), 0.2), 0.0, TRAFFIC)
    assert found.second_below is not None and 0.5 < found.second_below < 0.98
    assert found.tokens_per_second == pytest.approx(1 / 1.1) and found.alone_tokens_per_second == pytest.approx(1 / 1.5)


def test_adapters_of_one_base_are_no_pair() -> None:
    records = [record("none", task, 0) for task in ("a", "b")]
    records += [record(name, task, 4, rate=0.9 if name == task else 0.1) for name in ("a", "b") for task in ("a", "b")]
    assignment = assign(records, traffic={"a": 1.0, "b": 1.0}, concurrency=1)
    model = SpeedModel(records)
    apart = pair_costs(model, assignment, ("a", "b"))
    assert apart.together[0, 1, 0] != apart.alone[0, 1]
    one_model = pair_costs(model, assignment, ("a", "b"), {"a": "base", "b": "base"})
    assert one_model.together[0, 1, 0] == one_model.alone[0, 1]


def test_a_dear_second_drafter_is_left_out() -> None:
    unsure = np.array([[0.5, 0.4, 0.1], [0.1, 0.5, 0.4], [0.4, 0.1, 0.5]])
    prices = costs(2 - np.eye(3, 4), 5.0)
    assert choose_second(unsure, np.array([1, 2, 0]), prices, 0.0, TRAFFIC).second_below is None
