"""From proposals to SGLang's verify input, in PyTorch or, on CUDA, by one kernel. Which one is chosen here alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode

from sglang_hetero_spec.cuda.merge import merge_on_device
from sglang_hetero_spec.cuda.support import merges_in_triton
from sglang_hetero_spec.worker.merge import MergedTree, Proposal, merge_trees, merged_tree
from sglang_hetero_spec.worker.verify_input import (
    HeteroVerifyInput,
    MaskPlace,
    build_verify_input,
    mask_place,
    verify_input,
)

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.model_executor.model_runner import ModelRunner


def merged_input(
    roots: torch.Tensor,
    proposals: Sequence[Proposal],
    width: int,
    vocab_size: int,
    batch: ScheduleBatch,
    target_runner: ModelRunner,
) -> tuple[MergedTree, HeteroVerifyInput]:
    """roots: [b] int64, the last committed token of each request; the rest as for worker.merge.merge_trees."""
    if not merges_in_triton(roots.device):
        merged = merge_trees(roots, proposals, width, vocab_size)
        return merged, build_verify_input(merged, batch, target_runner)
    place = mask_place(batch, width, target_runner)
    full_mask = place.mode == TreeMaskMode.FULL_MASK
    if not full_mask and place.mode != TreeMaskMode.QLEN_ONLY:
        raise ValueError(f"HETERO does not know the tree mask {place.mode!r} of this attention backend.")
    mask = _room(place, roots.shape[0], width, full_mask, roots.device)
    trees = merge_on_device(roots, batch.seq_lens, proposals, width, mask, full_mask)
    merged = merged_tree(trees.tokens, trees.parents, proposals, vocab_size)
    return merged, verify_input(merged, trees, mask, in_parts=place.in_parts)


def _room(place: MaskPlace, batch_size: int, width: int, full_mask: bool, device: torch.device) -> torch.Tensor:
    """Where the mask is written: the kernel writes the trees, what lies in front of them is seen by all."""
    if place.buffer is not None:
        return place.buffer.fill_(True) if full_mask else place.buffer
    size = batch_size * width**2
    if not full_mask:
        return torch.empty(size, dtype=torch.bool, device=device)
    return torch.ones(size + place.seq_lens_sum * width, dtype=torch.bool, device=device)
