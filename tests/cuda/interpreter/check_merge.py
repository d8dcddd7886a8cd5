"""The merge kernel against worker.merge and drafters.tree, and its masks against plain loops.

Runs under TRITON_INTERPRET=1 (tests/cuda/test_kernels.py starts it), where a kernel is NumPy.
"""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sglang_hetero_spec.cuda.merge import DeviceTrees, merge_on_device, source_table
from sglang_hetero_spec.drafters.tree import DraftTree, chain, lay_out
from sglang_hetero_spec.worker.merge import Proposal, combine_proposals, merge_trees
from tests.drafters import reference
from tests.worker.proposals import proposal

VOCAB_SIZE = 97


def draft_tree(rng: random.Random, roots: list[int], width: int, shape: str) -> DraftTree:
    if shape == "chain":
        generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
        tokens = torch.randint(VOCAB_SIZE, (len(roots), width), generator=generator)
        tokens[:, 0] = torch.tensor(roots)
        # As drafters give them: parents are one row for all, tokens may be a part of something wider.
        return chain(torch.cat((tokens, tokens), dim=1)[:, :width], num_fed=rng.randint(1, width))
    padding = 0.25 if shape == "padded" else 0.0
    parents = [reference.random_tree(rng, width, padding) for _ in roots]
    depth = max(len(reference.path_to(row, node)) - 1 for row in parents for node in range(width))
    tokens = torch.tensor([[root, *(rng.randrange(VOCAB_SIZE) for _ in range(width - 1))] for root in roots])
    scores = torch.rand(len(roots), width) - 2
    return DraftTree(tokens, torch.tensor(parents), depth=depth, num_fed=rng.randint(1, width), scores=scores)


def shares(rng: random.Random, batch_size: int, doubled: float) -> dict[int, list[int]]:
    """Drafter -> the places that it drafts for; some have none, and some (by `doubled`) two."""
    found: dict[int, list[int]] = {}
    for place in range(batch_size):
        drafters = rng.sample([0, 2, 5, 7], rng.choice([0, 1, 1, 2 if rng.random() < doubled else 1]))
        for drafter in drafters:
            found.setdefault(drafter, []).append(place)
    return found


def proposals_of(rng: random.Random, roots: list[int], most: int, doubled: float) -> list[Proposal]:
    made = []
    for drafter, places in shares(rng, len(roots), doubled).items():
        shape = "branching" if doubled else rng.choice(["chain", "branching", "padded"])
        tree = draft_tree(rng, [roots[place] for place in places], rng.randint(1, most), shape)
        made.append(proposal(drafter, places, tree))
    return made


def merged_by_kernel(
    roots: list[int], lens: list[int], proposals: list[Proposal], width: int, full_mask: bool
) -> DeviceTrees:
    cells = sum(width * (length + width) for length in lens) if full_mask else len(lens) * width * width
    mask = torch.full((cells + 5,), bool(full_mask))
    return merge_on_device(torch.tensor(roots), torch.tensor(lens), proposals, width, mask, full_mask)


def check(roots: list[int], lens: list[int], proposals: list[Proposal], width: int) -> None:
    want = merge_trees(torch.tensor(roots), proposals, width)
    layout = lay_out(want.parents)
    positions = layout.positions + torch.tensor(lens).unsqueeze(1)
    for full_mask in (False, True):
        got = merged_by_kernel(roots, lens, proposals, width, full_mask)
        for name in ("tokens", "parents"):
            assert torch.equal(getattr(got, name), getattr(want, name)), name
        assert torch.equal(got.positions, positions)
        assert torch.equal(got.next_child, layout.next_child)
        assert torch.equal(got.next_sibling, layout.next_sibling)
        flat: list[bool] = []
        for place, length in enumerate(lens):
            for row in layout.ancestors[place].tolist():
                flat += [True] * (length if full_mask else 0) + row
        assert got.mask[: len(flat)].tolist() == flat
        assert got.mask[len(flat) :].tolist() == [full_mask] * 5, "nothing is written behind the trees"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    batch_size=st.integers(1, 7),
    most=st.integers(1, 17),
    spare=st.sampled_from([0, 0, 1, 6]),
)
@example(seed=1, batch_size=1, most=1, spare=0)
@example(seed=2, batch_size=3, most=64, spare=0)
@example(seed=3, batch_size=2, most=40, spare=30)
def test_every_output_is_the_reference(seed: int, batch_size: int, most: int, spare: int) -> None:
    rng = random.Random(seed)
    roots = [rng.randrange(VOCAB_SIZE) for _ in range(batch_size)]
    lens = [rng.choice([0, 1, 3, 16, 33]) for _ in roots]
    proposals = proposals_of(rng, roots, most, doubled=0.0)
    width = max((each.tree.width for each in proposals), default=1) + spare
    check(roots, lens, proposals, width)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), batch_size=st.integers(1, 5))
def test_what_two_drafters_proposed_together_is_merged_like_anything_else(seed: int, batch_size: int) -> None:
    rng = random.Random(seed)
    roots = [rng.randrange(VOCAB_SIZE) for _ in range(batch_size)]
    lens = [rng.randrange(9) for _ in roots]
    width = 9
    check(roots, lens, combine_proposals(proposals_of(rng, roots, 6, doubled=0.7), width), width)


def test_nobody_drafts() -> None:
    check([4, 5, 6], [0, 7, 2], [], 1)
    check([4, 5, 6], [0, 7, 2], [], 8)


@pytest.mark.parametrize("width", [1, 2, 33, 64])
def test_chains_of_one_drafter(width: int) -> None:
    rng = random.Random(width)
    roots = [3, 1, 4, 1]
    check(roots, [5, 0, 9, 2], [proposal(1, [0, 1, 2, 3], draft_tree(rng, roots, width, "chain"))], width)


def test_what_does_not_fit_is_refused() -> None:
    tree = draft_tree(random.Random(0), [1, 2], 5, "branching")
    with pytest.raises(ValueError, match="5 nodes does not fit into 4"):
        source_table([proposal(0, [0, 1], tree)], 2, 4)
    short = DraftTree(tree.tokens.int(), tree.parents, depth=tree.depth, num_fed=1)
    with pytest.raises(TypeError, match="int64"):
        source_table([proposal(0, [0, 1], short)], 2, 5)
