"""The threshold against every threshold tried by hand, and cases whose answer is plain."""

from __future__ import annotations

import numpy as np
import pytest

from sglang_hetero_spec.build.assign.threshold import Threshold, choose_threshold

TASKS = ("a", "b", "c")


def chosen(
    confidences: list[float], right: list[bool], seconds: np.ndarray, fallback: list[float], traffic: list[float]
) -> Threshold:
    """Prompts of the tasks in turn; a wrong one is taken for the next task."""
    labels = np.arange(len(confidences)) % len(TASKS)
    predicted = np.where(right, labels, (labels + 1) % len(TASKS))
    probabilities = np.repeat((1 - np.array(confidences))[:, None] / (len(TASKS) - 1), len(TASKS), axis=1)
    probabilities[np.arange(len(labels)), predicted] = confidences
    return choose_threshold(probabilities, labels, seconds, np.array(fallback), np.array(traffic), TASKS)


def by_hand(
    threshold: float,
    confidences: list[float],
    right: list[bool],
    seconds: np.ndarray,
    fallback: list[float],
    traffic: list[float],
) -> float:
    """Tokens per second, prompt by prompt."""
    counts = [len(range(task, len(confidences), len(TASKS))) for task in range(len(TASKS))]
    spent = tokens = 0.0
    for number, (confidence, is_right) in enumerate(zip(confidences, right, strict=True)):
        task = number % len(TASKS)
        served_as = task if is_right else (task + 1) % len(TASKS)
        weight = traffic[task] / counts[task]
        tokens += weight
        spent += weight * (seconds[task, served_as] if confidence >= threshold else fallback[task])
    return tokens / spent


def test_no_threshold_is_better_than_the_chosen_one() -> None:
    for seed in range(300):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(3, 40))
        confidences = rng.choice(np.linspace(0.35, 0.999, 25), size=count).tolist()
        right = (rng.random(count) < confidences).tolist()
        seconds = rng.uniform(0.5, 2.0, (3, 3))
        fallback = rng.uniform(0.5, 2.0, 3).tolist()
        case = (confidences, right, seconds, fallback, rng.uniform(0.1, 1, 3).tolist())
        found = chosen(*case)
        tried = [by_hand(value, *case) for value in (0.0, 1.0, *confidences, *(c + 1e-6 for c in confidences))]
        assert by_hand(found.min_confidence, *case) == pytest.approx(max(tried), rel=1e-9), f"seed {seed}"
        assert found.chosen_tokens_per_second == pytest.approx(max(tried), rel=1e-9)
        assert found.plateau[0] < found.min_confidence <= found.plateau[1]
        for point in found.curve[::10]:
            assert point.tokens_per_second == pytest.approx(by_hand(point.min_confidence, *case), rel=1e-9)


RIGHT_IS_FAST = np.where(np.eye(3, dtype=bool), 1.0, 3.0)


def test_a_wrong_route_that_costs_more_asks_for_more_confidence() -> None:
    confidences = [0.5, 0.55, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99]
    right = [False, True, True, False, True, True, True, True, True]
    cheap = chosen(confidences, right, np.where(np.eye(3, dtype=bool), 1.0, 1.9), [2.0] * 3, [1.0] * 3)
    dear = chosen(confidences, right, np.where(np.eye(3, dtype=bool), 1.0, 9.0), [2.0] * 3, [1.0] * 3)
    assert cheap.min_confidence < 0.5 and cheap.chosen_tokens_per_second == cheap.always_routed_tokens_per_second
    assert dear.plateau == (0.7, 0.75)


def test_where_the_fallback_is_best_nothing_is_routed() -> None:
    found = chosen([0.5, 0.7, 0.9], [True] * 3, np.full((3, 3), 2.0), [1.0] * 3, [1.0] * 3)
    assert found.min_confidence > 0.9
    assert found.chosen_tokens_per_second == found.fallback_tokens_per_second == pytest.approx(1.0)


def test_a_router_never_wrong_is_trusted_but_not_blindly() -> None:
    """Between the lowest confidence that can be, 1/3, and the lowest that was right."""
    found = chosen([0.8, 0.9, 0.99], [True] * 3, RIGHT_IS_FAST, [2.0] * 3, [1.0] * 3)
    assert found.plateau == (pytest.approx(1 / 3), 0.8)
    assert found.min_confidence == pytest.approx((1 / 3 + 0.8) / 2, abs=1e-4)
    assert found.chosen_tokens_per_second == found.oracle_tokens_per_second


def test_the_traffic_weighs_not_the_number_of_prompts() -> None:
    """Task a's only prompt is routed wrong; whether that matters is for the traffic to say."""
    confidences, right = [0.6, 0.5, 0.5], [False, True, True]
    much = chosen(confidences, right, RIGHT_IS_FAST, [2.0] * 3, [0.9, 0.05, 0.05])
    little = chosen(confidences, right, RIGHT_IS_FAST, [2.0] * 3, [0.05, 0.5, 0.45])
    assert much.min_confidence > 0.6
    assert little.min_confidence <= 0.5


def test_confusion_counts_are_kept_with_their_speed() -> None:
    found = chosen([0.6, 0.9, 0.9], [False, True, True], RIGHT_IS_FAST, [2.0] * 3, [1.0] * 3)
    cells = {(cell.task, cell.predicted): (cell.num_prompts, cell.tokens_per_second) for cell in found.confusion}
    assert cells[("a", "b")] == (1, pytest.approx(1 / 3))
    assert cells[("a", "a")] == (0, 1.0)
    assert cells[("b", "b")] == (1, 1.0)
