"""Excerpt -> hashed word and character n-grams. The same code offline and in the server.

Owns the feature definition `hashed_ngrams_v1`: a change of any constant, table or order here makes other
buckets of the same text and needs a new name. CRC-32 and arithmetic modulo 2**32: the buckets are the same in
every process and on every machine.

Written for few calls and little memory: in a server the caches are cold when a request comes, and a call of
numpy then costs more than its work on the some hundred bytes that it gets.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple
from zlib import crc32

import numpy as np

from sglang_hetero_spec.router.excerpt import Excerpt, excerpt_text
from sglang_hetero_spec.router.schema import FeatureSpec

_U = np.uint32
_FIBONACCI = _U(0x9E3779B1)
_PAIR = _U(0xC2B2AE35)
_CHARACTERS_LENGTH = 3.0  # Euclidean length of the character n-grams' half; that of the words' half is 1
_RUN_TYPES = {1: "<u1", 2: "<u2", 3: "<u4", 4: "<u4"}  # by n, of a character n-gram

# Bytes that UTF-8 never has.
START, GAP, END = b"\xfe", b"\xfd", b"\xff"


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


class SparseVector(NamedTuple):
    """Distinct buckets (uint32 [n], ascending): `num_words` of value `word_value`, the others of `character_value`.

    Neither part is empty: even an empty prompt has its ends, as a pair of words and as a pair of characters.
    """

    buckets: np.ndarray
    num_words: int
    word_value: float
    character_value: float


class FeatureHasher:
    """Turns excerpts into sparse vectors of `num_buckets` features.

    Words, pairs of neighbouring words, first and last word have the first half of the buckets, character
    n-grams the second. A feature is there or not; each half has a fixed Euclidean length, whatever the prompt's.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.group_buckets = 1 << spec.bucket_bits
        self.num_buckets = 2 * self.group_buckets
        self._shift = _U(32 - spec.bucket_bits)
        self._first_character = _U(self.group_buckets)  # of the type of the buckets: no search in a copy

    def excerpt(self, text: str) -> Excerpt:
        """Both ends of `text` within this feature definition's budget."""
        return excerpt_text(text, self.spec.head_bytes, self.spec.tail_bytes)

    def vector(self, excerpt: Excerpt) -> tuple[np.ndarray, np.ndarray]:
        """Buckets (uint32 [n], ascending, distinct) and their values (float32 [n])."""
        found = self.sparse(excerpt)
        values = np.empty(len(found.buckets), dtype=np.float32)
        values[: found.num_words] = found.word_value
        values[found.num_words :] = found.character_value
        return found.buckets, values

    def sparse(self, excerpt: Excerpt) -> SparseVector:
        """The same in the form in which it is cheapest to score."""
        hashes = self.buckets(excerpt)
        hashes.sort()
        first = np.empty(len(hashes), dtype=bool)
        first[0] = True
        np.not_equal(hashes[1:], hashes[:-1], out=first[1:])
        buckets = hashes[first]
        num_words = int(buckets.searchsorted(self._first_character))
        num_characters = len(buckets) - num_words
        return SparseVector(buckets, num_words, num_words**-0.5, _CHARACTERS_LENGTH * num_characters**-0.5)

    def buckets(self, excerpt: Excerpt) -> np.ndarray:
        """Bucket (uint32) of every n-gram, repeated ones included, in the order of `terms`."""
        folded = _folded(excerpt)
        words = _words(folded)
        # The ends are words in pairs only: what every prompt has would act as an intercept.
        hashed = np.fromiter(map(crc32, words), dtype=_U, count=len(words))
        pairs = hashed[:-1] * _PAIR
        pairs += hashed[1:]
        hashes = np.concatenate([hashed[1:-1], pairs, *self._character_ngrams(folded)])
        # Multiplicative hashing: the highest bits of the product depend on all bits of the factor.
        hashes *= _FIBONACCI
        hashes >>= self._shift
        hashes[2 * len(words) - 3 :] += self._first_character
        return hashes

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

    def _character_ngrams(self, folded: bytes) -> list[np.ndarray]:
        """Every run of n bytes, for each n of the definition, as an integer; views of `folded`, nothing copied."""
        padded = folded + b"\0\0\0"
        found = []
        for n in self.spec.char_ngrams:
            size = max(len(folded) - n + 1, 0)
            runs = np.ndarray((size,), dtype=_RUN_TYPES[n], buffer=padded, strides=(1,))
            found.append(runs & _U(0xFFFFFF) if n == 3 else runs)
        return found


def _folded(excerpt: Excerpt) -> bytes:
    if excerpt.tail is None:
        return b"".join((START, excerpt.head, END)).translate(_FOLD)
    return b"".join((START, excerpt.head, GAP, excerpt.tail, END)).translate(_FOLD)


def _words(folded: bytes) -> list[bytes]:
    """The words between START and END."""
    return [START, *folded.translate(_WORDS).split(), END]
