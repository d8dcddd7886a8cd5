"""Matches by looking at every place, to compare with."""

from __future__ import annotations

from collections.abc import Sequence

from sglang_hetero_spec.ngram.matches import LONGEST


def same_length(text: Sequence[int], place: int, context: Sequence[int]) -> int:
    """How many tokens up to `place` are the last ones of `context`, at most LONGEST."""
    length = 0
    while length < min(LONGEST, place + 1, len(context)) and text[place - length] == context[-1 - length]:
        length += 1
    return length


def all_matches(text: Sequence[int], context: Sequence[int], last: int) -> list[tuple[int, int]]:
    """(length, place) of every place up to `last` that matches, the longest first, then the latest."""
    found = [(same_length(text, place, context), place) for place in range(last + 1)]
    return sorted((pair for pair in found if pair[0]), reverse=True)
