"""The verify input: masks against plain loops, and the whole of it against SGLang's own tree building."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from sglang_hetero_spec.drafters.tree import DraftTree, ancestors_of, chain
from sglang_hetero_spec.worker.merge import MergedTree, merge_trees
from tests.drafters import reference
from tests.worker.proposals import proposal

pytestmark = pytest.mark.usefixtures("sglang")


def plain_mask(trees: list[list[int]], lens: list[int], full: bool) -> list[bool]:
    """Row after row, request after request: the prefix (if `full`), then which nodes are seen."""
    flat = []
    for parents, length in zip(trees, lens, strict=True):
        for node in range(len(parents)):
            seen = reference.path_to(parents, node)
            flat += [True] * (length if full else 0) + [other in seen for other in range(len(parents))]
    return flat


def random_trees(seed: int) -> tuple[list[list[int]], list[int]]:
    rng = random.Random(seed)
    width = rng.randint(1, 9)
    trees = [reference.random_tree(rng, width, padding=0.2) for _ in range(rng.randint(1, 5))]
    return trees, [rng.choice([0, 1, 5, 17]) for _ in trees]


@pytest.mark.parametrize("too_long", [0, 3])
@pytest.mark.parametrize("seed", range(20))
def test_full_mask(seed: int, too_long: int) -> None:
    from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode

    from sglang_hetero_spec.worker.verify_input import tree_mask

    trees, lens = random_trees(seed)
    ancestors, _ = ancestors_of(torch.tensor(trees))
    want = plain_mask(trees, lens, full=True)
    lens_sum = sum(lens) + too_long
    got = tree_mask(ancestors, torch.tensor(lens), lens_sum, TreeMaskMode.FULL_MASK)
    assert got.dtype == torch.bool and got.numel() == len(want) + too_long * len(trees[0])
    assert got[: len(want)].tolist() == want
    buffer = torch.zeros(len(want) + 40, dtype=torch.bool)
    got = tree_mask(ancestors, torch.tensor(lens), lens_sum, TreeMaskMode.FULL_MASK, buffer)
    assert got is buffer and got[: len(want)].tolist() == want


@pytest.mark.parametrize("seed", range(20))
def test_mask_of_the_trees_alone(seed: int) -> None:
    from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode

    from sglang_hetero_spec.worker.verify_input import tree_mask

    trees, lens = random_trees(seed)
    ancestors, _ = ancestors_of(torch.tensor(trees))
    want = plain_mask(trees, lens, full=False)
    assert tree_mask(ancestors, torch.tensor(lens), 0, TreeMaskMode.QLEN_ONLY).tolist() == want
    buffer = torch.zeros(len(want) + 7, dtype=torch.bool)
    got = tree_mask(ancestors, torch.tensor(lens), 0, TreeMaskMode.QLEN_ONLY, buffer)
    assert got is buffer and got[: len(want)].tolist() == want


def test_a_mask_that_we_do_not_know_is_refused() -> None:
    from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode

    from sglang_hetero_spec.worker.verify_input import tree_mask

    with pytest.raises(ValueError, match="does not know the tree mask"):
        tree_mask(torch.ones(1, 1, 1, dtype=torch.bool), torch.tensor([1]), 1, TreeMaskMode.QLEN_ONLY_BITPACKING)


def runner(verify_mask: object = None, max_context_len: int = 64) -> SimpleNamespace:
    return SimpleNamespace(attn_backend=SimpleNamespace(verify_mask=verify_mask, max_context_len=max_context_len))


def build(merged: MergedTree, lens: list[int], verify_mask: object = None):
    from sglang_hetero_spec.worker.verify_input import build_verify_input

    batch = SimpleNamespace(seq_lens=torch.tensor(lens), seq_lens_sum=sum(lens))
    return build_verify_input(merged, batch, runner(verify_mask))


class Beam:
    """A random beam search as SGLang records it, and the same tree as parents."""

    def __init__(self, rng: random.Random, topk: int, depth: int, num_drafts: int) -> None:
        parent_of = {cell: -1 for cell in range(topk)}
        self.parent_list, kept, start = [-1], list(range(topk)), topk
        for _ in range(1, depth):
            self.parent_list += kept
            parent_of.update({start + place * topk + k: kept[place] for place in range(topk) for k in range(topk)})
            kept = sorted(rng.sample(range(start, start + topk * topk), topk))
            start += topk * topk
        chosen: set[int] = set()
        while len(chosen) < num_drafts:
            free = [c for c, parent in parent_of.items() if c not in chosen and (parent == -1 or parent in chosen)]
            chosen.add(rng.choice(free))
        self.selected = sorted(chosen)
        number = {-1: 0} | {cell: place + 1 for place, cell in enumerate(self.selected)}
        self.parents = [-1, *(number[parent_of[cell]] for cell in self.selected)]
        self.tokens = [rng.randrange(99) for _ in self.parents]


@pytest.mark.parametrize("mode_name", ["FULL_MASK", "QLEN_ONLY"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 4), (2, 1, 2), (2, 3, 6), (4, 2, 9), (3, 4, 15)])
def test_the_verify_input_is_what_sglang_builds_of_the_same_trees(mode_name: str, shape: tuple[int, int, int]) -> None:
    from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode
    from sglang.srt.layers.attention.verify_mask import VerifyMask
    from sglang.srt.speculative.eagle_utils import build_tree_kernel_efficient

    topk, depth, num_drafts = shape
    rng = random.Random(str(shape))
    mode = TreeMaskMode[mode_name]
    beams = [Beam(rng, topk, depth, num_drafts) for _ in range(4)]
    lens = [0, 3, 11, 3]
    tokens = torch.tensor([beam.tokens for beam in beams])
    mask, positions, index, next_token, next_sibling, draft_tokens = build_tree_kernel_efficient(
        tokens[:, 0],
        torch.tensor([beam.parent_list if depth > 1 else [] for beam in beams], dtype=torch.int64).view(4, -1),
        torch.tensor([beam.selected for beam in beams]),
        tokens[:, 1:],
        torch.tensor(lens),
        sum(lens),
        topk,
        depth,
        num_drafts + 1,
        mode,
    )
    parents = torch.tensor([beam.parents for beam in beams])
    tree = DraftTree(tokens, parents, depth=depth, num_fed=1)
    merged = merge_trees(tokens[:, 0], [proposal(0, range(4), tree)], num_drafts + 1)
    owned = VerifyMask(buffer=torch.zeros_like(mask), mode=mode, max_bs=4)
    got = build(merged, lens, owned)
    assert got.custom_mask is owned.buffer and torch.equal(got.custom_mask, mask)
    assert torch.equal(got.positions, positions)
    assert torch.equal(got.retrieve_index, index)
    assert torch.equal(got.retrieve_next_token, next_token)
    assert torch.equal(got.retrieve_next_sibling, next_sibling)
    assert torch.equal(got.draft_token, draft_tokens)
    assert (got.spec_steps, got.draft_token_num, got.max_tree_depth) == (depth, num_drafts + 1, depth + 1)


@pytest.mark.parametrize("fits", [True, False])
def test_a_buffer_that_is_too_small_is_left_alone(fits: bool) -> None:
    from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode
    from sglang.srt.layers.attention.verify_mask import VerifyMask

    owned = VerifyMask(torch.zeros(3 * 9, dtype=torch.bool), TreeMaskMode.QLEN_ONLY, max_bs=3 if fits else 2)
    tree = chain(torch.zeros(3, 3, dtype=torch.int64), num_fed=2)
    merged = merge_trees(torch.zeros(3, dtype=torch.int64), [proposal(0, range(3), tree)], 3)
    got = build(merged, [1, 2, 3], owned)
    assert (got.custom_mask is owned.buffer) == fits
    assert got.custom_mask.tolist() == plain_mask([[-1, 0, 1]] * 3, [1, 2, 3], full=False)


def test_full_chains_take_the_short_way_to_the_same_layout() -> None:
    tree = chain(torch.tensor([[1, 2, 3], [4, 5, 6]]), num_fed=2)
    merged = merge_trees(tree.tokens[:, 0], [proposal(0, range(2), tree)], 3)
    padded = merge_trees(tree.tokens[:, 0], [proposal(0, [0], tree.select([0]))], 3)
    assert merged.is_full_chain and not padded.is_full_chain
    short, long = build(merged, [4, 7]), build(padded, [4, 7])
    for name in ("positions", "retrieve_next_token", "retrieve_next_sibling"):
        got, want = getattr(short, name).view(2, 3), getattr(long, name).view(2, 3)
        assert torch.equal(got[0], want[0])
        assert got.is_contiguous()
    assert short.tree_topk == long.tree_topk == 1
    assert long.retrieve_next_token[1].tolist() == long.retrieve_next_sibling[1].tolist() == [-1, -1, -1]
