"""Several drafters' trees in one: every request keeps its own tree, and nothing can be reached behind it."""

from __future__ import annotations

import random

import pytest
import torch

from sglang_hetero_spec.drafters.ngram import as_tree
from sglang_hetero_spec.drafters.tree import DraftTree, chain, lay_out
from sglang_hetero_spec.ngram.proposal import Grown
from sglang_hetero_spec.worker.merge import MergedTree, Proposal, combine_proposals, mark_fed, merge_trees
from sglang_hetero_spec.worker.written_slots import WrittenSlots
from tests.drafters import reference
from tests.worker.proposals import proposal

VOCAB_SIZE = 50


def draft_tree(rng: random.Random, roots: list[int], width: int) -> DraftTree:
    parents = [reference.random_tree(rng, width) for _ in roots]
    tokens = [[root, *(rng.randrange(VOCAB_SIZE) for _ in range(width - 1))] for root in roots]
    depth = max(len(reference.path_to(row, node)) - 1 for row in parents for node in range(width))
    return DraftTree(torch.tensor(tokens), torch.tensor(parents), depth=depth, num_fed=rng.randint(1, width))


def random_proposals(rng: random.Random, roots: list[int]) -> list[Proposal]:
    """Up to three drafters share a batch; some requests have none."""
    shares: dict[int, list[int]] = {}
    for place in range(len(roots)):
        drafter = rng.choice([None, 0, 2, 5])
        if drafter is not None:
            shares.setdefault(drafter, []).append(place)
    return [
        proposal(drafter, places, draft_tree(rng, [roots[p] for p in places], rng.randint(1, 9)))
        for drafter, places in shares.items()
    ]


def fields(merged: MergedTree) -> tuple:
    numbers = (merged.num_fed, merged.depth, merged.is_chain, merged.is_full_chain)
    return (merged.tokens.tolist(), merged.parents.tolist(), *numbers)


@pytest.mark.parametrize("seed", range(60))
def test_every_request_keeps_its_tree_and_padding_is_out_of_reach(seed: int) -> None:
    rng = random.Random(seed)
    roots = [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 8))]
    proposals = random_proposals(rng, roots)
    width = max((p.tree.width for p in proposals), default=1) + rng.choice([0, 0, 3])
    merged = merge_trees(torch.tensor(roots), proposals, width)
    layout = lay_out(merged.parents)
    owner = {place: (p, row) for p in proposals for row, place in enumerate(p.places)}
    assert merged.tokens.shape == merged.parents.shape == (len(roots), width)
    assert merged.depth == max((p.tree.depth for p in proposals), default=0)
    for place, root in enumerate(roots):
        tokens, parents, num_fed = [root], [-1], 0
        if place in owner:
            mine, row = owner[place]
            tokens, parents = mine.tree.tokens[row].tolist(), mine.tree.parents[row].tolist()
            num_fed = mine.tree.num_fed
        padding = width - len(tokens)
        assert merged.tokens[place].tolist() == tokens + [root] * padding
        assert merged.parents[place].tolist() == parents + [-1] * padding
        assert merged.num_fed[place] == num_fed
        links = layout.next_child[place].tolist(), layout.next_sibling[place].tolist()
        assert reference.walk(*links) == set(range(len(tokens)))


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_drafters_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    roots = [rng.randrange(VOCAB_SIZE) for _ in range(8)]
    proposals = random_proposals(rng, roots)
    width = max((p.tree.width for p in proposals), default=1)
    want = fields(merge_trees(torch.tensor(roots), proposals, width))
    for _ in range(4):
        rng.shuffle(proposals)
        assert fields(merge_trees(torch.tensor(roots), proposals, width)) == want


def test_one_drafter_for_all_is_the_identity() -> None:
    rng = random.Random(3)
    roots = [4, 5, 6]
    tree = draft_tree(rng, roots, 6)
    merged = merge_trees(torch.tensor(roots), [proposal(1, range(3), tree)], 6)
    assert torch.equal(merged.tokens, tree.tokens) and torch.equal(merged.parents, tree.parents)
    assert merged.num_fed == (tree.num_fed,) * 3
    assert merged.depth == tree.depth


def chains(*widths: int) -> list[Proposal]:
    """One request for each chain."""
    return [
        proposal(number, [number], chain(torch.full((1, width), 7), num_fed=width - 1))
        for number, width in enumerate(widths)
    ]


@pytest.mark.parametrize(
    ("widths", "num_requests", "width", "is_full"),
    [
        ((4, 4), 2, 4, True),
        ((4, 3), 2, 4, False),
        ((4, 4), 3, 4, False),
        ((4, 4), 2, 5, False),
        ((1,), 2, 1, True),
        ((), 3, 1, True),
        ((), 3, 4, False),
    ],
)
def test_full_chains_are_recognised(widths: tuple[int, ...], num_requests: int, width: int, is_full: bool) -> None:
    merged = merge_trees(torch.full((num_requests,), 7), chains(*widths), width)
    assert merged.is_chain and merged.is_full_chain == is_full
    if is_full:
        assert merged.parents.tolist() == [list(range(-1, width - 1))] * num_requests


def test_a_chain_and_a_branching_tree_of_one_drafter_are_no_chain() -> None:
    """As n-grams propose them: both trees are full, and one of them is a chain."""
    grown = [Grown([1, 2, 3], [0, 1, 2], [-1.0] * 3, depth=3), Grown([1, 2, 3], [0, 1, 1], [-1.0] * 3, depth=2)]
    roots = torch.zeros(3, dtype=torch.int64)
    tree = as_tree(grown, roots[:2], 4, wants_scores=False)
    merged = merge_trees(roots, [proposal(0, [0, 1], tree)], 4)
    assert not merged.is_chain and not merged.is_full_chain
    assert as_tree(grown[:1], roots[:1], 4, wants_scores=False).is_chain


def test_a_branch_anywhere_makes_a_tree() -> None:
    branch = DraftTree(torch.zeros(1, 3, dtype=torch.int64), torch.tensor([[-1, 0, 0]]), depth=1, num_fed=1)
    merged = merge_trees(torch.zeros(2, dtype=torch.int64), [*chains(3), proposal(1, [1], branch)], 3)
    assert not merged.is_chain and not merged.is_full_chain


def test_what_each_drafter_of_a_merged_tree_has_read() -> None:
    """Drafters 0 and 1 write their root and their chain, 2 writes nothing. Requests: of 0 alone, of 0 and 1, of 2 and
    1, of 0 and 2, of nobody; all have six slots, and whatever can be accepted is."""
    width = 6
    shares = {0: [0, 1, 3], 1: [1, 2], 2: [2, 3]}
    fed = {0: 3, 1: 4, 2: 0}
    proposals = [
        proposal(drafter, places, chain(torch.arange(4).repeat(len(places), 1), num_fed=fed[drafter]))
        for drafter, places in shares.items()
    ]
    merged = merge_trees(torch.zeros(5, dtype=torch.int64), combine_proposals(proposals, width), width)
    written = WrittenSlots([0, 1, 2], 5 * width, "cpu")
    slots = torch.arange(5 * width).view(5, width)
    mark_fed(written, slots, proposals, merged.num_fed, torch.tensor([2, 4, 4, 4, 1]))
    runs = [written.leading_run(drafter, slots, [width] * 5) for drafter in range(3)]
    assert runs == [[2, 1, 0, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
