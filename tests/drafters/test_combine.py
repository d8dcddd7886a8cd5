"""Two trees in one: every path of both is in it, once, and a narrow tree keeps the likeliest."""

from __future__ import annotations

import random

import pytest
import torch

from sglang_hetero_spec.drafters.combine import combine
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree
from tests.drafters import reference

VOCAB_SIZE = 4
Paths = dict[tuple[int, ...], float]


def random_draft(rng: random.Random, roots: list[int], width: int, scored: bool) -> DraftTree:
    """Siblings distinct, some nodes padding behind the others, children never likelier than their parents."""
    tokens, parents, scores, counts = [], [], [], []
    for root in roots:
        row_tokens, row_parents, row_scores = [root], [NO_NODE], [0.0]
        for _ in range(rng.randint(1, width) - 1):
            parent = rng.randrange(len(row_tokens))
            taken = {row_tokens[i] for i, above in enumerate(row_parents) if above == parent}
            free = [token for token in range(VOCAB_SIZE) if token not in taken]
            if free:
                row_tokens.append(rng.choice(free))
                row_parents.append(parent)
                row_scores.append(row_scores[parent] - rng.random())
        counts.append(len(row_tokens) - 1)
        padding = width - len(row_tokens)
        tokens.append(row_tokens + [root] * padding)
        parents.append(row_parents + [NO_NODE] * padding)
        scores.append(row_scores + [0.0] * padding)
    return DraftTree(
        torch.tensor(tokens),
        torch.tensor(parents),
        depth=width - 1,
        num_fed=1,
        scores=torch.tensor(scores) if scored else None,
        num_proposed=tuple(counts),
    )


def paths_of(tree: DraftTree, row: int) -> Paths:
    tokens, parents = tree.tokens[row].tolist(), tree.parents[row].tolist()
    real = [node for node in range(1, tree.width) if parents[node] != NO_NODE]
    scores = [0.0] * tree.width if tree.scores is None else tree.scores[row].tolist()
    found = {}
    for node in real:
        path = tuple(tokens[step] for step in reference.path_to(parents, node)[1:])
        assert path not in found, "siblings are distinct"
        found[path] = scores[node]
    return found


def united(first: Paths, second: Paths) -> Paths:
    return {path: max(first.get(path, -1e9), second.get(path, -1e9)) for path in first | second}


@pytest.mark.parametrize("seed", range(60))
def test_a_wide_tree_has_every_path_of_both_once(seed: int) -> None:
    rng = random.Random(seed)
    roots = [rng.randrange(VOCAB_SIZE) for _ in range(5)]
    first = random_draft(rng, roots, rng.randint(1, 8), scored=True)
    second = random_draft(rng, roots, rng.randint(1, 8), scored=True)
    merged = combine(first, second, first.width + second.width - 1)
    for row, root in enumerate(roots):
        want = united(paths_of(first, row), paths_of(second, row))
        assert paths_of(merged, row) == pytest.approx(want)
        assert merged.tokens[row, 0] == root and merged.parents[row, 0] == NO_NODE
        assert merged.counts is not None and int(merged.counts[row]) == len(want)
        assert all(parent < node for node, parent in enumerate(merged.parents[row].tolist()))


@pytest.mark.parametrize("seed", range(60))
def test_a_narrow_tree_keeps_the_likeliest(seed: int) -> None:
    rng = random.Random(seed)
    roots = [rng.randrange(VOCAB_SIZE) for _ in range(5)]
    first, second = (random_draft(rng, roots, rng.randint(2, 8), scored=True) for _ in range(2))
    width = rng.randint(1, max(first.width, second.width))
    merged = combine(first, second, width)
    for row in range(len(roots)):
        want = united(paths_of(first, row), paths_of(second, row))
        kept = paths_of(merged, row)
        assert len(kept) == min(width - 1, len(want))
        assert sorted(kept.values()) == pytest.approx(sorted(want.values())[len(want) - len(kept) :])
        assert all(path[:-1] in kept or len(path) == 1 for path in kept)


@pytest.mark.parametrize("scored", [False, True])
def test_scores_of_the_drafters_stay_as_they_were(scored: bool) -> None:
    rng = random.Random(1)
    first, second = random_draft(rng, [1, 2], 6, scored=True), random_draft(rng, [1, 2], 5, scored)
    assert first.scores is not None
    before = first.scores.clone()
    merged = combine(first, second, 6)
    assert torch.equal(first.scores, before)
    assert merged.num_fed == 1 and not merged.is_chain
