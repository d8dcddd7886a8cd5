"""How often a match of some length is right about the next token, learned from what was committed."""

from __future__ import annotations

from bisect import bisect_right

from sglang_hetero_spec.ngram.matches import LONGEST

# The shortest context of each level.
_STARTS = (1, 2, 3, 4, 6, 9, 13)
_LEVEL_OF = tuple(bisect_right(_STARTS, length) - 1 for length in range(LONGEST + 1))
_PRIOR = (0.1, 0.25, 0.4, 0.5, 0.65, 0.75, 0.85)
_PRIOR_TRIES = 8.0
_MOST_TRIES = 4000.0
NUM_LEVELS = len(_STARTS)


def level_of(length: int) -> int:
    return _LEVEL_OF[length if length < LONGEST else LONGEST]


class Confidence:
    """hit(level): probability that the next token is among those which followed the contexts of this level, given
    that it is none of those that followed longer ones."""

    def __init__(self) -> None:
        self._hits = [prior * _PRIOR_TRIES for prior in _PRIOR]
        self._tries = [_PRIOR_TRIES] * NUM_LEVELS

    def hit(self, level: int) -> float:
        return self._hits[level] / (self._tries[level] + 0.1)

    def learn(self, level: int, was_hit: bool) -> None:
        self._tries[level] += 1.0
        self._hits[level] += was_hit
        if self._tries[level] >= _MOST_TRIES:
            self._tries[level] /= 2
            self._hits[level] /= 2
