"""What is said of an 8B and a 70B target: limits where the answer is known."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from sglang_hetero_spec.bench.speed_model import expect
from sglang_hetero_spec.bench.speed_model.carried import TaskAccepts, task_accepts
from sglang_hetero_spec.bench.speed_model.expect import Place, Pooling, best_steps, break_even, speeds
from sglang_hetero_spec.bench.speed_model.roofline import (
    DRAFTERS,
    H100,
    LLAMA_8B,
    LLAMA_70B,
    LLAMA_70B_FP8,
    Efficiency,
)
from tests.bench.speed_model.made_up import MadeUp

DRAWS = Efficiency.draw(20)
PLACE = Place(LLAMA_8B, H100, DRAFTERS["0.5B"], 8, graphs=True)


def accepts(rates: list[list[float]], drafters: list[str]) -> TaskAccepts:
    """rates: [T, D], share of steps with at least 1 ... D drafts right."""
    at_least = np.array(rates)[None] * 100
    return TaskAccepts(
        tuple(f"t{n}" for n in range(len(rates))), tuple(drafters), np.full((1, len(rates)), 100.0), at_least, 9
    )


def test_lengths_are_of_the_first_places() -> None:
    one = accepts([[0.8, 0.5], [0.4, 0.2]], ["a", "b"])
    np.testing.assert_allclose(one.lengths(1), [[1.8, 1.4]])
    np.testing.assert_allclose(one.lengths(2), [[2.3, 1.6]])
    np.testing.assert_allclose(one.overall(2), [2 / (1 / 2.3 + 1 / 1.6)])


def test_one_request_in_flight_does_not_care_how_many_drafters_there_are() -> None:
    place = dataclasses.replace(PLACE, batch=1)
    one = accepts([[0.8, 0.5], [0.4, 0.2]], ["a", "b"])
    apart = speeds(place, one, 2, DRAWS, together=False)
    np.testing.assert_allclose(apart, speeds(place, one, 2, DRAWS, together=True), rtol=1e-9)


def test_one_drafter_for_all_is_one_forward() -> None:
    apart = speeds(PLACE, accepts([[0.8, 0.5]] * 2, ["a", "a"]), 2, DRAWS, together=False)
    one = accepts([[0.8, 0.5]] * 2, ["a", "b"])
    np.testing.assert_allclose(apart, speeds(PLACE, one, 2, DRAWS, together=True), rtol=1e-9)
    assert (speeds(PLACE, one, 2, DRAWS, together=False) < apart).all()


def test_equal_tasks_by_hand() -> None:
    """All drafters equal and in one forward: batch x accept length / (draft + verify), prefill beside it."""
    speed = speeds(PLACE, accepts([[0.8, 0.5]] * 3, ["a"] * 3), 2, DRAWS, together=True)
    step = PLACE.draft(2, DRAWS)[:, -1] + PLACE.verify(2, DRAWS)
    np.testing.assert_allclose(1 / speed, step / (8 * 2.3) + PLACE.other(DRAWS), rtol=1e-9)


def test_drafts_that_are_never_right_do_not_pay() -> None:
    speed = speeds(PLACE, accepts([[0.0, 0.0]], ["a"]), 1, DRAWS, together=True)
    assert (speed < PLACE.none(DRAWS)).all()


@pytest.mark.parametrize("drafters", [1, 2, 6])
def test_at_the_break_even_accept_length_speculation_is_as_fast(drafters: int) -> None:
    length = break_even(PLACE, drafters, 4, DRAWS)
    for n, value in enumerate(length):
        rates = [[value - 1]] * drafters  # an accept length of `value`, however it came about
        one = dataclasses.replace(DRAWS, **{name: draws[n : n + 1] for name, draws in vars(DRAWS).items()})
        even = accepts(rates, [f"d{k}" for k in range(drafters)])
        even = dataclasses.replace(even, at_least=np.pad(even.at_least, ((0, 0), (0, 0), (0, 3))))
        speed = speeds(PLACE, even, 4, one, together=False)
        np.testing.assert_allclose(speed, PLACE.none(one), rtol=1e-6)


def test_more_drafters_in_a_batch_never_pay_earlier() -> None:
    lengths = [break_even(PLACE, number, 4, DRAWS) for number in (1, 2, 4, 8)]
    assert all((one <= two + 1e-12).all() for one, two in pairwise(lengths))


def test_monotonicities() -> None:
    rates = accepts([[0.8, 0.6, 0.4]] * 2, ["a", "b"])
    one = speeds(PLACE, rates, 3, DRAWS, together=False)
    wider = dataclasses.replace(PLACE, where=dataclasses.replace(H100, bandwidth=2 * H100.bandwidth))
    assert (speeds(wider, rates, 3, DRAWS, together=False) >= one).all()
    assert (speeds(dataclasses.replace(PLACE, graphs=False), rates, 3, DRAWS, together=False) <= one).all()
    smaller = dataclasses.replace(PLACE, drafter=DRAFTERS["0.1B"])
    assert (speeds(smaller, rates, 3, DRAWS, together=False) >= one).all()
    better = accepts([[0.9, 0.7, 0.5]] * 2, ["a", "b"])
    assert (speeds(PLACE, better, 3, DRAWS, together=False) > one).all()


def test_the_chain_is_as_long_as_pays() -> None:
    certain = Pooling("", accepts([[1.0, 1.0, 1.0, 1.0]], ["a"]), True)
    doubtful = Pooling("", accepts([[0.5, 0.0, 0.0, 0.0]], ["a"]), True)
    assert best_steps(PLACE, certain, DRAWS) == 4
    assert best_steps(PLACE, doubtful, DRAWS) == 1


def test_70b_in_fp8_on_two_is_as_fast_as_in_bf16_on_four_within_a_tenth() -> None:
    """As words.py says beside the table, which has bf16 only."""
    middle = Efficiency(**{name: np.array([np.median(draws)]) for name, draws in vars(Efficiency.draw(500)).items()})
    rates = accepts([[0.9, 0.8, 0.7, 0.6]] * 6, list("abcdef"))
    for drafter in DRAFTERS.values():
        for batch in expect.BATCHES:
            one = Place(LLAMA_70B, H100.times(4), drafter, batch, graphs=False)
            two = Place(LLAMA_70B_FP8, H100.times(2), drafter, batch, graphs=False)
            assert two.none(middle) / one.none(middle) == pytest.approx(1, abs=0.1)
            speed = speeds(two, rates, 4, middle, together=False) / speeds(one, rates, 4, middle, together=False)
            assert speed == pytest.approx(1, abs=0.1)


def test_rows_are_complete_and_ordered() -> None:
    poolings = [Pooling("pool", accepts([[0.8, 0.6]] * 2, ["a", "b"]), False)]
    rows = list(expect.rows(poolings, DRAWS, graphs=False))
    assert len(rows) == 2 * 4 * 4
    for row in rows:
        if row["why_not"] is None:
            for name in ("accept_length", "none", "tokens_per_second", "speedup", "break_even"):
                low, middle, high = row[name]
                assert 0 < low <= middle <= high
    full = [row for row in rows if row["why_not"] is not None]
    assert all(row["drafter"] == "3B" for row in full)


def test_what_a_run_says_of_tasks() -> None:
    asked = MadeUp()._requests("hetero", "c1", 0)
    found = task_accepts(asked, 300)
    assert found.tasks == found.drafters == ("code", "sums", "talk")
    assert found.requests == 24
    mine = [one for one in asked if one.task == "sums"]
    exact = sum(one.correct for one in mine) / sum(one.verify_steps for one in mine) + 1
    assert found.lengths(4)[0, 1] == pytest.approx(exact)
    low, high = np.quantile(found.lengths(4)[:, 1], (0.05, 0.95))
    assert low < exact < high < 1.2 * low


def test_a_run_without_histograms_says_nothing_of_shorter_chains() -> None:
    silent = MadeUp(histograms=False)._requests("hetero", "c1", 0)
    assert task_accepts(silent, 10) == "the server did not say how many drafts each verify step found right."
    assert task_accepts(MadeUp()._requests("none", "c1", 0), 10) == "no request of this arm was drafted for."
