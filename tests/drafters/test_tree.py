"""Tree layouts against plain Python."""

from __future__ import annotations

import random

import pytest
import torch

from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree, ancestors_of, chain, chain_layout, lay_out
from tests.drafters import reference

CPU = torch.device("cpu")


def trees(seed: int, padding: float) -> list[list[int]]:
    rng = random.Random(seed)
    width = rng.choice([1, 2, 3, 5, 8, 9, 16, 17, 33])
    return [reference.random_tree(rng, width, padding) for _ in range(rng.randint(1, 5))]


@pytest.mark.parametrize("padding", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(40))
def test_layout_is_the_plain_one(seed: int, padding: float) -> None:
    batch = trees(seed, padding)
    got = lay_out(torch.tensor(batch))
    for row, parents in enumerate(batch):
        want = reference.layout(parents)
        assert got.positions[row].tolist() == want.positions
        assert got.ancestors[row].tolist() == want.ancestors
        assert got.next_child[row].tolist() == want.next_child
        assert got.next_sibling[row].tolist() == want.next_sibling


@pytest.mark.parametrize("seed", range(40))
def test_verification_reaches_the_tree_and_nothing_else(seed: int) -> None:
    batch = trees(seed, padding=0.3)
    got = lay_out(torch.tensor(batch))
    for row, parents in enumerate(batch):
        reached = reference.walk(got.next_child[row].tolist(), got.next_sibling[row].tolist())
        assert reached == reference.reachable(parents)


def test_no_node_sees_padding() -> None:
    parents = [NO_NODE, 0, NO_NODE, 1, NO_NODE]
    ancestors = lay_out(torch.tensor([parents])).ancestors[0]
    for node in (2, 4):
        assert ancestors[node].nonzero().flatten().tolist() == [node]
        assert ancestors[:, node].nonzero().flatten().tolist() == [node]


def test_laying_out_changes_no_input() -> None:
    parents = torch.tensor([[NO_NODE, 0, NO_NODE, 1]])
    before = parents.clone()
    lay_out(parents)
    assert torch.equal(parents, before)


@pytest.mark.parametrize("seed", range(40))
def test_ancestors_of_a_forest(seed: int) -> None:
    """Without a root of their own the nodes form a forest, as a drafter's expanded nodes do."""
    rng = random.Random(seed)
    width = rng.choice([1, 2, 7, 8, 31, 32])
    batch = [[rng.randrange(-1, node) for node in range(width)] for _ in range(3)]
    ancestors, depths = ancestors_of(torch.tensor(batch))
    assert depths.dtype == torch.int64
    for row, parents in enumerate(batch):
        paths = [reference.path_to(parents, node) for node in range(width)]
        assert depths[row].tolist() == [len(path) - 1 for path in paths]
        assert ancestors[row].tolist() == [[other in path for other in range(width)] for path in paths]


@pytest.mark.parametrize("width", [1, 2, 3, 64, 65, 128])
def test_chain_layout_and_the_longest_paths(width: int) -> None:
    got = chain_layout(width, CPU)
    want = reference.layout(list(range(-1, width - 1)))
    assert got.positions.tolist() == [want.positions]
    assert got.ancestors.tolist() == [want.ancestors]
    assert got.next_child.tolist() == [want.next_child]
    assert got.next_sibling.tolist() == [[-1] * width]


def test_chain() -> None:
    tree = chain(torch.tensor([[5, 6, 7], [8, 9, 1]]), num_fed=2)
    assert tree.parents.tolist() == [[-1, 0, 1], [-1, 0, 1]]
    assert (tree.width, tree.depth, tree.num_fed, tree.is_chain) == (3, 2, 2, True)


def test_a_tree_with_a_branch_is_no_chain() -> None:
    tree = DraftTree(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[-1, 0, 0, 1]]), depth=2, num_fed=1)
    assert not tree.is_chain
