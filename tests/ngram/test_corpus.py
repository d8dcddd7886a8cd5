from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_hetero_spec.ngram.corpus import ORDERS, Corpus
from sglang_hetero_spec.ngram.matches import LONGEST, NO_TOKEN
from sglang_hetero_spec.pool.entries.ngram import DEFAULT_CAPACITY
from tests.ngram.reference import same_length

TEXTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), min_size=1, max_size=12)


def kept(texts: list[list[int]], capacity: int) -> list[int]:
    """What the ring should hold: the last tokens of all texts, each behind a mark."""
    return [token for text in texts for token in (NO_TOKEN, *text[-(capacity - 1) :])][-capacity:]


@given(TEXTS, st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(8, 64))
def test_what_is_found_is_there_and_the_longest_is_found(
    texts: list[list[int]], context: list[int], capacity: int
) -> None:
    """Whatever was overwritten meanwhile. Contexts longer than the longest that is looked up may be missed."""
    corpus = Corpus(capacity)
    for text in texts:
        corpus.insert(text)
    ring = kept(texts, capacity)
    found = corpus.match(np.array(context, np.int32), 3, 64)
    assert found.lengths == sorted(found.lengths, reverse=True)
    there = {}
    for place in range(len(ring)):
        length = same_length(ring, place, context)
        following = (*ring[place + 1 :][:3], *[NO_TOKEN] * 3)[:3]
        cut = following.index(NO_TOKEN) if NO_TOKEN in following else 3
        there.setdefault((length, (*following[:cut], *[NO_TOKEN] * (3 - cut))), place)
    for length, following in zip(found.lengths, found.following.tolist(), strict=True):
        assert (length, tuple(following)) in there
    longest = max(length for length, _ in there)
    assert (max(found.lengths, default=0)) >= min(longest, max(ORDERS))


def test_the_oldest_go_first_and_memory_stays() -> None:
    rng = random.Random(1)
    corpus = Corpus(5000)
    num_bytes = corpus.num_bytes
    first = [rng.randrange(1000) for _ in range(100)]
    corpus.insert(first)
    context = np.array(first[10:30], np.int32)
    assert corpus.match(context, 2, 8).following[0].tolist() == first[30:32]
    for _ in range(400):
        last = [rng.randrange(1000) for _ in range(rng.randrange(1, 700))]
        corpus.insert(last)
    assert corpus.num_inserted > 20 * 5000
    assert corpus.num_tokens == 5000 and corpus.num_bytes == num_bytes
    assert 16 not in corpus.match(context, 2, 8).lengths
    tail = [rng.randrange(1000) for _ in range(40)]
    corpus.insert(tail)
    found = corpus.match(np.array(tail[10:30], np.int32), 2, 8)
    assert found.lengths[0] == LONGEST and found.following[0].tolist() == tail[30:32]


def test_bytes_as_documented() -> None:
    assert Corpus(DEFAULT_CAPACITY).num_bytes == 36 * DEFAULT_CAPACITY
    assert Corpus(1 << 10 | 1).num_bytes < 53 * (1 << 10 | 1)


def test_texts_are_not_joined() -> None:
    corpus = Corpus(64)
    corpus.insert([1, 2, 3])
    corpus.insert([4, 5])
    found = corpus.match(np.array([3], np.int32), 2, 4)
    assert found.lengths == [1] and found.following.tolist() == [[NO_TOKEN, NO_TOKEN]]
    assert corpus.match(np.array([3, 4], np.int32), 2, 4).lengths == [1]


@pytest.mark.parametrize("length", [70_000, 140_000])
def test_a_text_longer_than_a_chunk_is_one(length: int) -> None:
    text = np.random.default_rng(2).integers(0, 50_000, length).astype(np.int32)
    corpus = Corpus(1 << 18)
    corpus.insert(text)
    for end in (65_534, 65_537, 65_540):
        found = corpus.match(text[end - 20 : end], 4, 8)
        assert found.lengths[0] == LONGEST and found.following[0].tolist() == text[end : end + 4].tolist()
