from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sglang_hetero_spec.ngram.matches import match_within
from tests.ngram.reference import all_matches


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 5), st.integers(1, 6))
def test_the_longest_and_latest_come_first(text: list[int], count: int, most: int) -> None:
    found = match_within(np.array(text, np.int32), count, most)
    expected = all_matches(text, text, len(text) - 2)[:most]
    assert found.lengths == [length for length, _ in expected]
    for (_, place), following in zip(expected, found.following.tolist(), strict=True):
        period = len(text) - 1 - place
        assert following == [text[place + 1 + step % period] for step in range(count)]


def test_a_repetition_goes_on() -> None:
    found = match_within(np.array([9, 1, 2, 1, 2], np.int32), 5, 1)
    assert found.lengths == [2] and found.following.tolist() == [[1, 2, 1, 2, 1]]


def test_nothing_is_found_of_a_new_token() -> None:
    found = match_within(np.array([1, 2, 3], np.int32), 4, 8)
    assert found.lengths == [] and found.following.shape == (0, 4)
