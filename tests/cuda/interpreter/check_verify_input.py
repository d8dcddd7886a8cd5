"""SGLang's verify input made by the kernel and made in PyTorch are the same, field by field.

Runs under TRITON_INTERPRET=1 (tests/cuda/test_kernels.py starts it).
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_hetero_spec import cpu
from tests.cuda.interpreter.check_merge import VOCAB_SIZE, proposals_of
from tests.worker.proposals import proposal

cpu.enable()

from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode  # noqa: E402
from sglang.srt.layers.attention.verify_mask import VerifyMask  # noqa: E402

from sglang_hetero_spec.drafters.tree import DraftLaw, chain  # noqa: E402
from sglang_hetero_spec.worker import merged_input as module  # noqa: E402
from sglang_hetero_spec.worker.merge import Proposal  # noqa: E402

TENSORS = ("draft_token", "custom_mask", "positions", "retrieve_index", "retrieve_next_token", "retrieve_next_sibling")
NUMBERS = ("spec_steps", "topk", "draft_token_num", "tree_topk")


def made(
    monkeypatch: pytest.MonkeyPatch, in_triton: bool, roots: list[int], lens: list[int], proposals: list[Proposal], mask
) -> tuple[Any, Any]:
    monkeypatch.setattr(module, "merges_in_triton", lambda device: in_triton)
    width = max((each.tree.width for each in proposals), default=1) + 2
    batch = SimpleNamespace(seq_lens=torch.tensor(lens), seq_lens_sum=sum(lens))
    runner = SimpleNamespace(attn_backend=SimpleNamespace(verify_mask=mask and mask(), max_context_len=64))
    return module.merged_input(torch.tensor(roots), proposals, width, VOCAB_SIZE, batch, runner)


def owned(mode: TreeMaskMode, fits: int) -> VerifyMask:
    return VerifyMask(buffer=torch.zeros(5000, dtype=torch.bool), mode=mode, max_bs=fits)


PLACES = {
    "of the device": None,
    "the trees alone, in a buffer": lambda: owned(TreeMaskMode.QLEN_ONLY, 9),
    "whole, in a buffer": lambda: owned(TreeMaskMode.FULL_MASK, 9),
    "whole, in none": lambda: owned(TreeMaskMode.FULL_MASK, 0),
}


@pytest.mark.parametrize("mask", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("seed", range(6))
def test_both_ways_make_the_same_input(monkeypatch: pytest.MonkeyPatch, seed: int, mask) -> None:
    rng = random.Random(seed)
    roots = [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 5))]
    lens = [rng.randrange(20) for _ in roots]
    proposals = proposals_of(rng, roots, 8, doubled=0.0)
    want, got = (made(monkeypatch, way, roots, lens, proposals, mask) for way in (False, True))
    for name in ("tokens", "parents"):
        assert torch.equal(getattr(got[0], name), getattr(want[0], name)), name
    for name in ("num_fed", "depth", "is_chain", "is_full_chain", "width"):
        assert getattr(got[0], name) == getattr(want[0], name), name
    for name in TENSORS:
        one, other = getattr(got[1], name), getattr(want[1], name)
        assert one.dtype == other.dtype and torch.equal(one, other), name
    assert [getattr(got[1], name) for name in NUMBERS] == [getattr(want[1], name) for name in NUMBERS]
    assert got[1].tree_mask is want[1].tree_mask is None


def test_the_laws_of_drawn_drafts_come_along(monkeypatch: pytest.MonkeyPatch) -> None:
    law = DraftLaw(probs=torch.rand(2, 3, VOCAB_SIZE).softmax(-1))
    tree = chain(torch.tensor([[1, 5, 6, 7], [2, 8, 9, 3]]), num_fed=4, law=law)
    both = [made(monkeypatch, way, [1, 4, 2], [3, 0, 9], [proposal(1, [0, 2], tree)], None) for way in (False, True)]
    for name in ("drawn", "probs", "void", "num_drafts"):
        one, other = (getattr(each[1].law, name) for each in both)
        assert torch.equal(one, other), name


def test_a_mask_that_we_do_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = lambda: owned(TreeMaskMode.QLEN_ONLY_BITPACKING, 9)  # noqa: E731
    with pytest.raises(ValueError, match="does not know the tree mask"):
        made(monkeypatch, True, [1], [3], [], packed)
