"""The last `capacity` tokens of many texts, and where in them a context stood: a ring with chains of equal contexts.

As in LZ77 compressors: a table has the latest place of each context of 1, 2, 4 and 8 tokens (by a hash of it), and each
place the one before it. The oldest tokens are overwritten; what pointed to them is seen to be out of order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sglang_hetero_spec.ngram.matches import LONGEST, NO_TOKEN, Matches, Tokens

ORDERS = (8, 4, 2, 1)
_CHUNK = 1 << 16
_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class Corpus:
    """capacity: tokens kept, one more for each text."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.num_inserted = 0
        bits = max(1, (capacity - 1).bit_length())
        self._shift = 64 - bits
        # Zeros take no memory before they are written to: links are places + 1.
        self._tokens = np.zeros(capacity, np.int32)
        self._latest = np.zeros((len(ORDERS), 1 << bits), np.int32)
        self._before = np.zeros((len(ORDERS), capacity), np.int32)
        self._plain_powers = [pow(_MULTIPLIER, n + 1, 1 << 64) for n in range(max(ORDERS))]
        self._powers = np.array(self._plain_powers, np.uint64)

    @property
    def num_bytes(self) -> int:
        return self._tokens.nbytes + self._latest.nbytes + self._before.nbytes

    @property
    def num_tokens(self) -> int:
        return min(self.num_inserted, self.capacity)

    def insert(self, tokens: Sequence[int] | Tokens) -> None:
        """Take a text, or a part of one. Nothing is taken to follow its last token."""
        text = np.asarray(tokens, np.int32)[-(self.capacity - 1) :]
        self._append(np.array([NO_TOKEN], np.int32), text[:0])
        for start in range(0, len(text), _CHUNK):
            self._append(text[start : start + _CHUNK], text[max(0, start - max(ORDERS)) : start])

    def _append(self, new: Tokens, ahead: Tokens) -> None:
        """ahead: what the new tokens follow, as much as a context needs."""
        places = (self.num_inserted + np.arange(len(new))) % self.capacity
        self._tokens[places] = new
        self.num_inserted += len(new)
        text = np.concatenate((ahead, new))
        for number, order in enumerate(ORDERS):
            self._before[number, places] = 0
            first = max(order - 1, len(ahead))
            if first < len(text) and text[-1] != NO_TOKEN:
                self._link(number, self._keys(text, order)[first - order + 1 :], places[first - len(ahead) :])

    def _keys(self, text: Tokens, order: int) -> np.ndarray:
        """[n - order + 1] places in the table, of the contexts that end at each token from the first that has one."""
        wide = (text.astype(np.int64) + 1).astype(np.uint64)
        count = len(text) - order + 1
        sums = np.zeros(count, np.uint64)
        for back in range(order):
            start = order - 1 - back
            sums += wide[start : start + count] * self._powers[back]
        return ((sums ^ (sums >> np.uint64(29))) * np.uint64(_MULTIPLIER) >> np.uint64(self._shift)).astype(np.int64)

    def _last_keys(self, context: list[int]) -> dict[int, int]:
        """The same of the contexts of each length that end with `context`, in plain numbers: it is quicker for one."""
        found: dict[int, int] = {}
        total = 0
        for back, token in enumerate(reversed(context)):
            total = (total + (token + 1) * self._plain_powers[back]) & _MASK
            found[back + 1] = ((total ^ (total >> 29)) * _MULTIPLIER & _MASK) >> self._shift
        return found

    def _link(self, number: int, keys: np.ndarray, places: np.ndarray) -> None:
        latest, before = self._latest[number], self._before[number]
        order = keys.argsort(kind="stable")
        keys, places = keys[order], places[order]
        again = np.flatnonzero(keys[1:] == keys[:-1])
        before[places] = latest[keys]
        before[places[again + 1]] = places[again] + 1
        latest[keys] = places + 1  # of equal keys the last assignment stays

    def match(self, context: Tokens, num_following: int, most: int) -> Matches:
        """context: [n] int32, the last tokens of a text; LONGEST of them are enough."""
        found = np.fromiter(self._candidates(context, most), np.int64)
        if not len(found):
            return Matches([], np.empty((0, num_following), np.int32))
        lengths = self._lengths(found, context)
        order = np.argsort(-lengths, kind="stable")
        order = order[lengths[order] > 0]
        return Matches(lengths[order].tolist(), self._following(found[order], num_following))

    def _candidates(self, context: Tokens, most: int) -> Iterable[int]:
        """Places that may be a context's end; of longer contexts first, of each length the latest first."""
        newest = (self.num_inserted - 1) % self.capacity
        keys = self._last_keys(context[-max(ORDERS) :].tolist())
        per_order = max(1, most // len(ORDERS))
        found: dict[int, None] = {}
        for number, order in enumerate(ORDERS):
            if order > len(context):
                continue
            before = self._before[number]
            place = int(self._latest[number, keys[order]]) - 1
            age = -1
            room = len(found) + per_order
            while place >= 0 and len(found) < room:
                older = (newest - place) % self.capacity
                if older <= age:
                    break
                age = older
                found[place] = None
                place = int(before[place]) - 1
        return found

    def _lengths(self, places: np.ndarray, context: Tokens) -> np.ndarray:
        longest = min(LONGEST, len(context))
        ages = (self.num_inserted - 1 - places) % self.capacity
        back = np.arange(longest)
        there = self._tokens[(places[:, None] - back) % self.capacity]
        same = (there == context[::-1][:longest]) & (ages[:, None] + back < self.num_tokens)
        return np.where(same.all(axis=1), longest, same.argmin(axis=1))

    def _following(self, places: np.ndarray, count: int) -> Tokens:
        ages = (self.num_inserted - 1 - places) % self.capacity
        ahead = np.arange(1, count + 1)
        tokens = self._tokens[(places[:, None] + ahead) % self.capacity]
        ends = (tokens == NO_TOKEN) | (ahead > ages[:, None])
        tokens[np.maximum.accumulate(ends, axis=1)] = NO_TOKEN
        return tokens
