from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_hetero_spec.ngram.confidence import Confidence, level_of
from sglang_hetero_spec.ngram.matches import NO_TOKEN, Matches
from sglang_hetero_spec.ngram.proposal import followed, grow, learn, next_tokens


def matches(*rows: tuple[int, list[int]]) -> Matches:
    return Matches([length for length, _ in rows], np.array([following for _, following in rows], np.int32))


@st.composite
def any_matches(draw: st.DrawFn) -> Matches:
    rows = draw(
        st.lists(st.tuples(st.integers(1, 16), st.lists(st.integers(0, 3), min_size=4, max_size=4)), max_size=12)
    )
    cut = [(length, (f[: length % 5] + [NO_TOKEN] * 4)[:4]) for length, f in sorted(rows, reverse=True)]
    return matches(*cut) if cut else Matches([], np.empty((0, 4), np.int32))


@given(any_matches(), any_matches(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 12))
def test_trees_are_trees(own: Matches, shared: Matches, steps: int, topk: int, nodes: int) -> None:
    """Parents first, siblings distinct, a child's path never likelier than its parent's, all bounds kept."""
    found = followed((own, Confidence()), (shared, Confidence()))
    grown = grow(found, steps, topk, nodes)
    depths = [0]
    for number, (parent, token, score) in enumerate(zip(grown.parents, grown.tokens, grown.scores, strict=True)):
        assert 0 <= parent <= number and token != NO_TOKEN
        assert score <= ([0.0, *grown.scores][parent])
        depths.append(depths[parent] + 1)
    children = list(zip(grown.parents, grown.tokens, strict=True))
    assert len(set(children)) == len(children)
    assert max(grown.parents.count(parent) for parent in {*grown.parents, 0}) <= topk
    assert len(grown.tokens) <= nodes and max(depths) == grown.depth <= steps
    assert sum(math.exp(score) for score, parent in zip(grown.scores, grown.parents, strict=True) if not parent) <= 1.0


def test_the_longest_context_is_believed_first_and_branches_come_from_others() -> None:
    own = matches((9, [1, 2, 3]), (2, [4, 5, 6]))
    grown = grow(followed((own, Confidence())), num_steps=3, topk=2, num_nodes=4)
    assert (grown.tokens, grown.parents) == ([1, 2, 3, 4], [0, 1, 2, 0])


def test_a_chain_follows_one_place() -> None:
    own = matches((3, [1, 2, 3]), (3, [1, 4, 5]))
    assert grow(followed((own, Confidence())), num_steps=3, topk=1, num_nodes=3).tokens == [1, 2, 3]


def test_a_token_of_a_longer_context_takes_nothing_from_the_shorter_ones() -> None:
    """What is left when it is wrong is for the others."""
    confidence = Confidence()
    found = next_tokens(followed((matches((9, [1]), (2, [1]), (2, [1]), (2, [2])), confidence)), 0)
    first = confidence.hit(level_of(9))
    assert found[1] == pytest.approx(first)
    assert found[2] == pytest.approx((1 - first) * confidence.hit(level_of(2)))


def test_frequent_tokens_are_likelier() -> None:
    own = matches(*[(4, [token]) for token in (7, 8, 8, 8, 9)])
    found = next_tokens(followed((own, Confidence())), 0)
    assert found[8] > found[7] > found[9]


@pytest.mark.parametrize("rate", [0.2, 0.9])
def test_probabilities_become_what_is_seen(rate: float) -> None:
    rng = random.Random(3)
    confidence = Confidence()
    for _ in range(3000):
        found = followed((matches((5, [1]), (2, [2])), confidence))
        # Where the longer context is wrong, the shorter one is right three times of four.
        token = 1 if rng.random() < rate else 2 if rng.random() < 0.75 else 3
        learn(found, [token], 1)
    found = next_tokens(followed((matches((5, [1]), (2, [2])), confidence)), 0)
    assert found[1] == pytest.approx(rate, abs=0.04)
    assert found[2] == pytest.approx((1 - rate) * 0.75, abs=0.04)
