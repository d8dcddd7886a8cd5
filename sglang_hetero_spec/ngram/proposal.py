"""From matches to a tree: the likeliest continuations, equal beginnings once, with the probability of each path.

A token's probability is that of prediction by partial matching: the longest contexts are asked first, and what they
leave (their tokens being wrong, as often as `Confidence` has seen that) goes to the next shorter ones.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sglang_hetero_spec.ngram.confidence import Confidence, level_of
from sglang_hetero_spec.ngram.matches import NO_TOKEN, Matches

_LOWEST = 1e-6


@dataclass(frozen=True)
class Followed:
    """One match. following: tokens, NO_TOKEN behind the end."""

    length: int
    confidence: Confidence
    following: list[int]


@dataclass(frozen=True)
class Grown:
    """A tree without its root, nodes in an order in which parents come first. parents: numbers of nodes, 0 the root.

    scores: log-probability of the path to each node.
    """

    tokens: list[int]
    parents: list[int]
    scores: list[float]
    depth: int


def followed(*sources: tuple[Matches, Confidence]) -> list[Followed]:
    """The matches of all sources, the longest contexts first, and the first source's among equals."""
    every = [
        Followed(length, confidence, following)
        for matches, confidence in sources
        for length, following in zip(matches.lengths, matches.following.tolist(), strict=True)
    ]
    every.sort(key=lambda match: -match.length)
    return every


def next_tokens(matches: Sequence[Followed], depth: int) -> dict[int, float]:
    """Probability of each token that the matches say comes `depth` places behind the root's successor."""
    found: dict[int, float] = {}
    left = 1.0
    for confidence, level, counts in _levels(matches, depth):
        new = {token: count for token, count in counts.items() if token not in found}
        if not new:
            continue
        hit = confidence.hit(level)
        share = left * hit / sum(new.values())
        for token, count in new.items():
            found[token] = share * count
        left *= 1.0 - hit
    return found


def _levels(matches: Sequence[Followed], depth: int) -> list[tuple[Confidence, int, dict[int, float]]]:
    """Of each level of context, as long as it has become at this depth, how often each token followed."""
    levels: list[tuple[Confidence, int, dict[int, float]]] = []
    for match in matches:
        token = match.following[depth]
        if token == NO_TOKEN:
            continue
        level = level_of(match.length + depth)
        if not levels or levels[-1][0] is not match.confidence or levels[-1][1] != level:
            levels.append((match.confidence, level, {}))
        counts = levels[-1][2]
        counts[token] = counts.get(token, 0.0) + (1.0 if counts else 1.5)  # the latest first: it counts for more
    return levels


def learn(matches: Sequence[Followed], tokens: Sequence[int], most: int) -> None:
    """Tell the matches' sources what did follow: `tokens`, of which matches speak of the first `most`."""
    for depth, token in enumerate(tokens[:most]):
        known: set[int] = set()
        for confidence, level, counts in _levels(matches, depth):
            if counts.keys() <= known:
                continue
            known |= counts.keys()
            confidence.learn(level, token in counts)
            if token in counts:
                break
        matches = [match for match in matches if match.following[depth] == token]
        if not matches:
            return


def grow(matches: Sequence[Followed], num_steps: int, topk: int, num_nodes: int) -> Grown:
    """The likeliest `num_nodes` nodes, no path longer than num_steps, no node with more than topk children."""
    tokens: list[int] = []
    parents: list[int] = []
    scores: list[float] = []
    deepest = 0
    serial = 0
    heap: list[tuple[float, int, int, int, int, Sequence[Followed]]] = []
    node, score, depth, members = 0, 0.0, 0, matches
    while True:
        if depth < num_steps and members:
            ranked = sorted(next_tokens(members, depth).items(), key=lambda item: -item[1])[:topk]
            for token, probability in ranked:
                serial += 1
                entry = (-score - math.log(max(probability, _LOWEST)), serial, node, depth, token, members)
                heapq.heappush(heap, entry)
        if not heap or len(tokens) == num_nodes:
            break
        cost, _, parent, depth, token, members = heapq.heappop(heap)
        tokens.append(token)
        parents.append(parent)
        scores.append(-cost)
        score = -cost
        members = [match for match in members if match.following[depth] == token]
        depth += 1
        deepest = max(deepest, depth)
        node = len(tokens)
    return Grown(tokens, parents, scores, deepest)
