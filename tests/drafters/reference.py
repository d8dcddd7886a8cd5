"""What trees and drafters should do, in plain Python: one request, one node, one token at a time."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import NamedTuple

NO_NODE = -1


class Layout(NamedTuple):
    positions: list[int]
    ancestors: list[list[bool]]
    next_child: list[int]
    next_sibling: list[int]


def random_tree(rng: random.Random, width: int, padding: float = 0.0) -> list[int]:
    """Parents of a random tree whose node 0 is the root. padding: chance that a node hangs nowhere; nodes may hang
    below such a node."""
    return [NO_NODE] + [NO_NODE if rng.random() < padding else rng.randrange(node) for node in range(1, width)]


def path_to(parents: list[int], node: int) -> list[int]:
    """The node and all above it, from the top."""
    path = []
    while node != NO_NODE:
        path.insert(0, node)
        node = parents[node]
    return path


def children_of(parents: list[int], node: int) -> list[int]:
    return [child for child, parent in enumerate(parents) if parent == node]


def reachable(parents: list[int]) -> set[int]:
    """Nodes that a walk from the root can come to."""
    return {node for node in range(len(parents)) if path_to(parents, node)[0] == 0}


def layout(parents: list[int]) -> Layout:
    width = len(parents)
    paths = [path_to(parents, node) for node in range(width)]
    siblings = [-1] * width
    for node in range(width):
        children = children_of(parents, node)
        for child, following in pairwise(children):
            siblings[child] = following
    return Layout(
        positions=[1 if node > 0 and parents[node] == NO_NODE else len(path) - 1 for node, path in enumerate(paths)],
        ancestors=[[other in path for other in range(width)] for path in paths],
        next_child=[next(iter(children_of(parents, node)), -1) for node in range(width)],
        next_sibling=siblings,
    )


def walk(next_child: list[int], next_sibling: list[int]) -> set[int]:
    """Nodes that SGLang looks at, by the links alone; its grammar mask follows the root's sibling link too."""
    seen, todo = set(), [0]
    while todo:
        node = todo.pop()
        assert node not in seen, "links form a tree"
        seen.add(node)
        todo += [link for link in (next_child[node], next_sibling[node]) if link != -1]
    return seen


class ContextModel:
    """A language model whose every logit depends on every token before it, in their order: attention that sees one
    token too many or too few gives another answer."""

    def __init__(self, vocab_size: int, seed: int) -> None:
        self.vocab_size = vocab_size
        self._seed = seed

    def logits(self, context: tuple[int, ...]) -> list[float]:
        rng = random.Random(hash((self._seed, context)))
        return [rng.gauss(0.0, 2.0) for _ in range(self.vocab_size)]

    def log_probs(self, context: tuple[int, ...]) -> list[float]:
        logits = self.logits(context)
        total = math.log(sum(math.exp(x) for x in logits))
        return [x - total for x in logits]


def greedy_path(model: ContextModel, context: tuple[int, ...], steps: int) -> tuple[int, ...]:
    path: tuple[int, ...] = ()
    for _ in range(steps):
        logits = model.logits(context + path)
        path += (logits.index(max(logits)),)
    return path


def beam(model: ContextModel, context: tuple[int, ...], topk: int, depth: int) -> dict[tuple[int, ...], float]:
    """Every node that a beam search draws, as path -> log-probability: topk children of each of the topk likeliest
    nodes of every level."""
    drawn: dict[tuple[int, ...], float] = {}
    level: dict[tuple[int, ...], float] = {(): 0.0}
    for _ in range(depth):
        children = {}
        for path, score in level.items():
            scores = model.log_probs(context + path)
            for token in sorted(range(model.vocab_size), key=lambda t: -scores[t])[:topk]:
                children[(*path, token)] = score + scores[token]
        drawn.update(children)
        level = dict(sorted(children.items(), key=lambda item: -item[1])[:topk])
    return drawn


def likeliest(candidates: dict[tuple[int, ...], float], count: int) -> dict[tuple[int, ...], float]:
    return dict(sorted(candidates.items(), key=lambda item: -item[1])[:count])
