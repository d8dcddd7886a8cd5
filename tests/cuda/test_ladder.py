"""The ladder of CUDA graphs covers every batch, pads evenly, and captures what saves the most first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sglang_hetero_spec.cuda.graphs.ladder import Budget, GraphCost, batch_sizes, capture_order, widths


@given(largest=st.integers(1, 512), number=st.integers(1, 20))
def test_sizes_cover_every_batch_and_pad_evenly(largest: int, number: int) -> None:
    sizes = batch_sizes(largest, number)
    assert len(sizes) <= number and sizes == tuple(sorted(set(sizes)))
    assert sizes[-1] == largest and (number == 1 or sizes[0] == 1)


def test_sizes_of_a_usual_server() -> None:
    assert batch_sizes(48, 8) == (1, 2, 3, 5, 9, 16, 28, 48)
    assert batch_sizes(48, 1) == (48,)
    assert batch_sizes(0, 3) == batch_sizes(5, 0) == ()


@given(largest=st.integers(1, 256), number=st.integers(1, 8))
def test_all_sizes_are_captured_once_the_largest_first(largest: int, number: int) -> None:
    sizes = batch_sizes(largest, number)
    order = capture_order(sizes)
    assert sorted(order) == list(sizes) and order[0] == largest


def test_then_what_saves_the_most_padding() -> None:
    assert capture_order((1, 2, 5, 10, 22, 48)) == (48, 5, 1, 22, 10, 2)
    assert capture_order((1, 48)) == (48, 1)
    assert capture_order(()) == ()


def test_widths_are_those_that_save_padding() -> None:
    assert widths([5, 9, 9, 16], 1) == (16,)
    assert widths([5, 9, 9, 16], 2) == (9, 16), "two drafters have 9 nodes"
    assert widths([5, 9, 9, 16], 9) == (1, 5, 9, 16)
    assert widths([], 3) == (1,)


def test_a_budget_is_of_both() -> None:
    budget = Budget(100, 2.0).without(GraphCost(60, 0.5))
    assert budget == Budget(40, 1.5)
    assert budget.holds(GraphCost(40, 1.5))
    assert not budget.holds(GraphCost(41, 0.0)) and not budget.holds(GraphCost(0, 1.6))
