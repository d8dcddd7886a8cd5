"""Excerpt -> hashed word and character n-grams. The same numpy code offline and in the server.

Owns the feature definition `hashed_ngrams_v1`: a change of any constant, table or order here makes other
buckets of the same text and needs a new name. All arithmetic is modulo 2**32 on uint32 arrays, so the
buckets are the same in every process and on every machine.

Written for few numpy calls: a call costs about as much as its work on the 1,000 characters it gets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.router.characters import END, GAP, START, fold_and_find_words
from sglang_hetero_spec.router.excerpt import Excerpt, excerpt_text
from sglang_hetero_spec.router.schema import FeatureSpec

_U = np.uint32
_BASE = 0x01000193  # odd, so that it has an inverse modulo 2**32
_PAIR = _U(0x9E3779B1)
_SPREAD = _U(0x85EBCA77)
_CHARACTERS_LENGTH = 3.0  # Euclidean length of the character n-grams' half; that of the words' half is 1
_TWO_WORDS, _FIRST_WORD, _LAST_WORD = _U(77), _U(1234567), _U(7654321)


@dataclass(frozen=True)
class Span:
    """Where an n-gram lies in the code points: `codes[start:end]`."""

    sort: str
    start: int
    end: int


@dataclass(frozen=True)
class CodePoints:
    """Folded code points of an excerpt (uint32 [n], markers included) and its words' starts and ends."""

    codes: np.ndarray
    word_starts: np.ndarray
    word_ends: np.ndarray


class FeatureHasher:
    """Turns excerpts into sparse vectors of `num_buckets` features.

    Words (one, two, and the outermost ones once more) have the first half of the buckets, character n-grams
    the second. A feature is there or not; each half has a fixed Euclidean length, whatever the prompt's.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.group_buckets = 1 << spec.bucket_bits
        self.num_buckets = 2 * self.group_buckets
        longest = spec.head_chars + spec.tail_chars + 3  # three markers
        self._powers = _powers(_BASE, longest)
        self._inverses = _powers(pow(_BASE, -1, 1 << 32), longest)
        self._shift = _U(32 - spec.bucket_bits)
        self._longest_ngram = max(spec.char_ngrams)

    def excerpt(self, text: str) -> Excerpt:
        """Head and tail of `text` within this feature definition's budget."""
        return excerpt_text(text, self.spec.head_chars, self.spec.tail_chars)

    def vector(self, excerpt: Excerpt) -> tuple[np.ndarray, np.ndarray]:
        """Buckets (int64 [n], ascending, distinct) and their values (float32 [n])."""
        seen = np.zeros(self.num_buckets, dtype=bool)
        seen[self.buckets(self.code_points(excerpt))] = True
        buckets = seen.nonzero()[0]
        num_words = int(buckets.searchsorted(self.group_buckets))
        values = np.empty(len(buckets), dtype=np.float32)
        values[:num_words] = max(num_words, 1) ** -0.5
        values[num_words:] = _CHARACTERS_LENGTH * max(len(buckets) - num_words, 1) ** -0.5
        return buckets, values

    def code_points(self, excerpt: Excerpt) -> CodePoints:
        """Folded code points between their markers, and the words among them."""
        head = _raw(excerpt.head)
        gap = len(head) + 1
        if excerpt.tail is None:
            codes = np.empty(gap + 1, dtype=_U)
        else:
            tail = _raw(excerpt.tail)
            codes = np.empty(gap + len(tail) + 2, dtype=_U)
            codes[gap + 1 : -1] = tail
        codes[1:gap] = head
        codes[0], codes[gap], codes[-1] = START, GAP, END  # without a tail END takes GAP's place
        folded, inside = fold_and_find_words(codes)
        inside[0] = inside[gap] = inside[-1] = False
        changes = (inside[1:] != inside[:-1]).nonzero()[0] + 1
        return CodePoints(folded, changes[0::2], changes[1::2])

    def buckets(self, points: CodePoints) -> np.ndarray:
        """Bucket (uint32) of every n-gram, repeated ones included, in the order of `spans`."""
        mixed = points.codes * _SPREAD
        mixed ^= mixed >> _U(15)
        words = self._word_hashes(mixed, points)
        num_words = sum(map(len, words))
        hashes = _mix(np.concatenate([*words, *self._character_hashes(mixed)]))
        hashes >>= self._shift
        hashes[num_words:] += _U(self.group_buckets)
        return hashes

    def spans(self, points: CodePoints) -> list[Span]:
        """What each element of `buckets` stands for; for explanations, in no hurry."""
        words = list(zip(points.word_starts.tolist(), points.word_ends.tolist(), strict=True))
        edge = min(self.spec.edge_words, len(words))
        spans = [Span("word", *word) for word in words]
        spans += [Span("two words", words[i][0], words[i + 1][1]) for i in range(len(words) - 1)]
        spans += [Span("first words", *word) for word in words[:edge]]
        spans += [Span("last words", *word) for word in words[len(words) - edge :]]
        size = len(points.codes)
        for n in sorted(self.spec.char_ngrams):
            spans += [Span("characters", i, i + n) for i in range(size - n + 1)]
        return spans

    def _word_hashes(self, mixed: np.ndarray, points: CodePoints) -> list[np.ndarray]:
        """Polynomial hash of every word, as a difference of prefix sums moved to power 0."""
        starts, ends = points.word_starts, points.word_ends
        prefix = np.empty(len(mixed) + 1, dtype=_U)
        prefix[0] = 0
        np.cumsum(mixed * self._powers[: len(mixed)], dtype=_U, out=prefix[1:])
        words = prefix.take(ends)
        words -= prefix.take(starts)
        words *= self._inverses.take(starts)
        pairs = words[:-1] * _PAIR
        pairs += words[1:]
        pairs += _TWO_WORDS
        edge = min(self.spec.edge_words, len(words))
        return [words, pairs, words[:edge] + _FIRST_WORD, words[len(words) - edge :] + _LAST_WORD]

    def _character_hashes(self, mixed: np.ndarray) -> list[np.ndarray]:
        """Rolling polynomial hash of every run of n code points, for each n of the definition."""
        found, rolling = [], mixed
        for n in range(1, min(self._longest_ngram, len(mixed)) + 1):
            if n > 1:
                rolling = rolling[:-1] * _U(_BASE)
                rolling += mixed[n - 1 :]
            if n in self.spec.char_ngrams:
                found.append(rolling + _U(n))
        return found


def _raw(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _mix(values: np.ndarray) -> np.ndarray:
    """In place, a bijection of uint32 in which every input bit moves every output bit (MurmurHash3's end)."""
    values ^= values >> _U(16)
    values *= _U(0x85EBCA6B)
    values ^= values >> _U(13)
    values *= _U(0xC2B2AE35)
    values ^= values >> _U(16)
    return values


def _powers(base: int, count: int) -> np.ndarray:
    powers, value = np.empty(count, dtype=_U), 1
    for index in range(count):
        powers[index] = value
        value = value * base & 0xFFFFFFFF
    return powers
