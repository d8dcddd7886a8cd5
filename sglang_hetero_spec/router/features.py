"""Excerpt -> hashed word and character n-grams. The same code offline and in the server.

Owns the feature definition `hashed_ngrams_v1`: a change of any constant, table or order here makes other
buckets of the same text and needs a new name. CRC-32 and arithmetic modulo 2**32: the buckets are the same in
every process and on every machine.

Written for cold caches, which is how a request finds them in a server: what is called for the first time costs
5 to 20 microseconds then, a function of numpy or another way into the same one (an operator, a scalar operand, a
copy that casts), and its work on the some hundred numbers that it gets hardly anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy import add, empty, fromiter, multiply, ndarray, not_equal, right_shift

from sglang_hetero_spec.router.excerpt import Excerpt, excerpt_ids, excerpt_text
from sglang_hetero_spec.router.schema import FeatureSpec

_U = np.dtype(np.uint32)
# Operands of ufuncs are arrays of no dimension: numpy takes them as they are, and converts scalars.
_FIBONACCI = np.array(0x9E3779B1, dtype=_U)
_PAIR = np.array(0xC2B2AE35, dtype=_U)
_THREE_BYTES = np.array(0xFFFFFF, dtype=_U)
_CHARACTERS_LENGTH = 3.0  # Euclidean length of the character n-grams' half; that of the words' half is 1
_RUN_TYPES = {n: np.dtype(code) for n, code in ((1, "<u1"), (2, "<u2"), (3, "<u4"), (4, "<u4"))}

# Bytes that UTF-8 never has.
START, GAP, END = b"\xfe", b"\xfd", b"\xff"
_START_HASH, _END_HASH = crc32(START), crc32(END)


class Term(NamedTuple):
    """Where an n-gram lies in the folded bytes: `folded[start:end]`; `sort` is `word`, `pair` or `characters`."""

    sort: str
    start: int
    end: int


def _fold_table() -> bytes:
    """Capitals to small letters, digits to 0 (that there is a number matters, not which), controls to spaces."""
    table = bytearray(range(256))
    for byte in (*range(0x0A), *range(0x0B, 0x20), 0x7F):
        table[byte] = ord(" ")
    table[ord("A") : ord("Z") + 1] = range(ord("a"), ord("z") + 1)
    table[ord("0") : ord("9") + 1] = b"0" * 10
    return bytes(table)


def _word_table() -> bytes:
    """After folding: what is no letter, digit, underscore or byte of a longer character becomes a space."""
    table = bytearray(b" " * 256)
    for first, last in (("0", "0"), ("_", "_"), ("a", "z"), ("\x80", "\xf7")):
        table[ord(first) : ord(last) + 1] = range(ord(first), ord(last) + 1)
    return bytes(table)


_FOLD = _fold_table()
_WORDS = _word_table()
_WORD = re.compile(rb"[0_a-z\x80-\xf7]+")  # what `_WORDS` leaves, for explanations


class FeatureHasher:
    """Turns excerpts into sparse vectors of `num_buckets` features.

    Words, pairs of neighbouring words, first and last word have the first half of the buckets, character
    n-grams the second. A feature is there or not; each half has a fixed Euclidean length, whatever the prompt's.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.group_buckets = 1 << spec.bucket_bits
        self.num_buckets = 2 * self.group_buckets
        self._shift = np.array(32 - spec.bucket_bits, dtype=_U)
        self._first_character = np.array(self.group_buckets, dtype=_U)
        self._head_bytes, self._tail_bytes = spec.head_bytes, spec.tail_bytes
        self._runs = tuple((n, _RUN_TYPES[n]) for n in spec.char_ngrams)

    def excerpt(self, text: str) -> Excerpt:
        """Both ends of `text` within this feature definition's budget."""
        return excerpt_text(text, self._head_bytes, self._tail_bytes)

    def excerpt_of_ids(self, ids: Sequence[int], decode: Callable[[list[int]], str]) -> Excerpt:
        """The same of token ids."""
        return excerpt_ids(ids, decode, self._head_bytes, self._tail_bytes)

    def vector(self, excerpt: Excerpt) -> tuple[np.ndarray, np.ndarray]:
        """Buckets (uint32 [n], ascending, distinct) and their values (float32 [n])."""
        buckets, num_words, word_value, character_value = self.sparse(excerpt)
        values = np.empty(len(buckets), dtype=np.float32)
        values[:num_words] = word_value
        values[num_words:] = character_value
        return buckets, values

    def sparse(self, excerpt: Excerpt) -> tuple[np.ndarray, int, float, float]:
        """The same in the form in which it is cheapest to score: buckets, how many are words', values of both sorts.

        Neither sort is missing: even an empty prompt has its ends, as a pair of words and as a pair of characters.
        """
        padded, first_character = self._padded_buckets(_folded(excerpt))
        found = padded[:-1]
        found.sort()
        is_last = not_equal(padded[1:], found)
        buckets = found.compress(is_last)
        num_words = is_last[:first_character].tobytes().count(1)
        num_characters = len(buckets) - num_words
        return buckets, num_words, num_words**-0.5, _CHARACTERS_LENGTH * num_characters**-0.5

    def buckets(self, excerpt: Excerpt) -> np.ndarray:
        """Bucket (uint32) of every n-gram, repeated ones included, in the order of `terms`."""
        return self._padded_buckets(_folded(excerpt))[0][:-1]

    def terms(self, excerpt: Excerpt) -> list[Term]:
        """What each element of `buckets` stands for; for explanations, in no hurry."""
        folded = _folded(excerpt)
        words = [match.span() for match in _WORD.finditer(folded)]
        ends = [(0, 1), *words, (len(folded) - 1, len(folded))]
        terms = [Term("word", *word) for word in words]
        terms += [Term("pair", left[0], right[1]) for left, right in pairwise(ends)]
        for n in self.spec.char_ngrams:
            terms += [Term("characters", i, i + n) for i in range(len(folded) - n + 1)]
        return terms

    def readable(self, excerpt: Excerpt, start: int, end: int) -> str:
        """Part of the folded bytes; `^` and `$` are the prompt's ends, `...` what was left out between them."""
        run = _folded(excerpt)[start:end]
        return run.replace(START, b"^").replace(END, b"$").replace(GAP, b"...").decode("utf-8", "replace")

    def _padded_buckets(self, folded: bytes) -> tuple[np.ndarray, int]:
        """`buckets` and one element more, and where the characters begin.

        The last element is any bucket of words: after sorting it still differs from its neighbour, a character's.
        """
        hashed = [_START_HASH, *map(crc32, folded.translate(_WORDS).split()), _END_HASH]
        words = fromiter(hashed, _U, len(hashed))
        num_pairs = len(hashed) - 1
        first_character = 2 * num_pairs - 1
        hashes = empty(first_character + len(self._runs) * len(folded) + 1, _U)
        hashes = hashes[: self._fill_runs(hashes, first_character, folded) + 1]
        # The ends are words in pairs only: what every prompt has would act as an intercept.
        hashes[: num_pairs - 1] = words[1:-1]
        pairs = hashes[num_pairs - 1 : first_character]
        multiply(words[:-1], _PAIR, pairs)
        add(pairs, words[1:], pairs)
        # Multiplicative hashing: the highest bits of the product depend on all bits of the factor.
        multiply(hashes, _FIBONACCI, hashes)
        right_shift(hashes, self._shift, hashes)
        characters = hashes[first_character:-1]
        add(characters, self._first_character, characters)
        return hashes, first_character

    def _fill_runs(self, hashes: np.ndarray, start: int, folded: bytes) -> int:
        """Write every run of n bytes, for each n of the definition, as an integer; the position after the last."""
        padded = folded + b"\0\0\0"
        for n, dtype in self._runs:
            end = start + max(len(folded) - n + 1, 0)
            hashes[start:end] = ndarray((end - start,), dtype, padded, 0, (1,))
            if n == 3:
                hashes[start:end] &= _THREE_BYTES
            start = end
        return start


def _folded(excerpt: Excerpt) -> bytes:
    if excerpt.tail is None:
        return b"".join((START, excerpt.head, END)).translate(_FOLD)
    return b"".join((START, excerpt.head, GAP, excerpt.tail, END)).translate(_FOLD)
