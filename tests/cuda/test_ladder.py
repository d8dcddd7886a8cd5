"""The ladder of CUDA graphs keeps to its budget, covers every batch, and gives things up in the order that it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_hetero_spec.cuda.ladder import Budget, GraphCost, Ladder, batch_sizes, plan_ladder, widths

MIB = 1 << 20
VERIFY, DRAFT = GraphCost(20 * MIB, 1.0), GraphCost(10 * MIB, 0.25)
PROPOSED = {"code": 5, "maths": 9, "words": 9, "memory": 16}


def ladder(num_bytes: int, seconds: float, largest: int = 48) -> Ladder:
    drafts = {name: DRAFT for name in ("code", "maths", "words")}
    return plan_ladder(largest, PROPOSED, VERIFY, drafts, Budget(num_bytes, seconds))


@given(largest=st.integers(1, 512), number=st.integers(1, 20))
def test_sizes_cover_every_batch_and_pad_evenly(largest: int, number: int) -> None:
    sizes = batch_sizes(largest, number)
    assert len(sizes) <= number and sizes == tuple(sorted(set(sizes)))
    assert sizes[-1] == largest and (number == 1 or sizes[0] == 1)


def test_sizes_of_a_usual_server() -> None:
    assert batch_sizes(48, 8) == (1, 2, 3, 5, 9, 16, 28, 48)
    assert batch_sizes(48, 1) == (48,)
    assert batch_sizes(0, 3) == batch_sizes(5, 0) == ()


def test_widths_are_those_that_save_padding() -> None:
    assert widths([5, 9, 9, 16], 1) == (16,)
    assert widths([5, 9, 9, 16], 2) == (9, 16), "two drafters have 9 nodes"
    assert widths([5, 9, 9, 16], 9) == (1, 5, 9, 16)
    assert widths([], 3) == (1,)


@given(num_bytes=st.integers(0, 4000 * MIB), seconds=st.floats(0, 100), largest=st.integers(1, 64))
def test_the_budget_holds(num_bytes: int, seconds: float, largest: int) -> None:
    made = ladder(num_bytes, seconds, largest)
    drafting = sum(len(sizes) for sizes in (*made.drafting.values(), *made.catch_up.values()))
    assert len(made.verify) * VERIFY.num_bytes + drafting * DRAFT.num_bytes <= num_bytes
    assert len(made.verify) * VERIFY.seconds + drafting * DRAFT.seconds <= seconds + 1e-9
    assert made.num_graphs == len(made.verify) + drafting
    if made.verify:
        assert (largest, 16) in made.verify, "the largest batch of the widest trees"


def test_more_budget_never_means_less() -> None:
    numbers = [ladder(each * 50 * MIB, 1e9).num_graphs for each in range(80)]
    assert numbers[0] == 0 and numbers[-1] == 3 * 8 + 3 * 8 * 2
    first = next(place for place, number in enumerate(numbers) if number)
    assert all(number > 0 for number in numbers[first:])


@pytest.mark.parametrize(
    ("num_bytes", "catch_up", "num_widths"), [(960 * MIB, True, 3), (720 * MIB, False, 3), (560 * MIB, False, 2)]
)
def test_what_is_given_up_first(num_bytes: int, catch_up: bool, num_widths: int) -> None:
    made = ladder(num_bytes, 1e9)
    assert bool(made.catch_up) == catch_up
    assert len({width for _, width in made.verify}) == num_widths
    assert len(made.drafting["code"]) == 8
