"""Earlier places where a text went on from the same last tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A longer context than this says no more about what follows.
LONGEST = 16
NO_TOKEN = -1

Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Matches:
    """m places, the longest context first and the latest first among equals.

    lengths: [m], how many last tokens are the same, 1 to LONGEST. following: [m, k] int32, what came then, NO_TOKEN
    behind its end.
    """

    lengths: list[int]
    following: Tokens


def match_within(tokens: Tokens, num_following: int, most: int) -> Matches:
    """Places within a text that its own end repeats, `most` at most. tokens: [n] int32, n > 0.

    Where the repeated part reaches the end, the repetition is taken to go on.
    """
    newest = len(tokens) - 1
    places = np.flatnonzero(tokens[:-1] == tokens[-1])
    same = [places]
    for length in range(1, min(LONGEST, newest + 1)):
        places = places[places >= length]
        places = places[tokens[places - length] == tokens[newest - length]]
        if not len(places):
            break
        same.append(places)
    chosen: dict[int, int] = {}
    for length in range(len(same), 0, -1):
        for place in same[length - 1][-most:][::-1].tolist():
            if len(chosen) == most:
                break
            chosen.setdefault(place, length)
    found = np.fromiter(chosen, np.int64, len(chosen))
    period = newest - found
    steps = np.arange(num_following)
    following = tokens[found[:, None] + 1 + steps % np.maximum(period, 1)[:, None]]
    return Matches(list(chosen.values()), following)
