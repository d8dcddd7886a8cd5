"""SGLang's verify input out of a merged tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode
from sglang.srt.speculative.eagle_info import EagleVerifyInput
from sglang.srt.speculative.eagle_utils import default_tree_mask_mode

from sglang_hetero_spec.drafters.tree import TreeLayout, chain_layout, lay_out
from sglang_hetero_spec.worker.merge import MergedLaw, MergedTree

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.model_executor.model_runner import ModelRunner

IRREGULAR_TREE = -1  # SGLang's word for a tree without a fixed branching factor (NGRAM uses it)


@dataclass
class HeteroVerifyInput(EagleVerifyInput):
    """An EAGLE verify input whose trees may differ from request to request. law: of drafts drawn at random."""

    law: MergedLaw | None = None

    @property
    def tree_topk(self) -> int:
        return 1 if self.topk == 1 else IRREGULAR_TREE


def build_verify_input(merged: MergedTree, batch: ScheduleBatch, target_runner: ModelRunner) -> HeteroVerifyInput:
    """merged: trees of the whole batch; batch.seq_lens: [b], committed tokens without the root."""
    batch_size, width = merged.tokens.shape
    device = merged.tokens.device
    if merged.is_full_chain:
        layout = _expand(chain_layout(width, device), batch_size)
    else:
        layout = lay_out(merged.parents)
    positions = layout.positions + batch.seq_lens.unsqueeze(1)
    numbers = torch.arange(batch_size * width, device=device).view(batch_size, width)
    return HeteroVerifyInput(
        draft_token=merged.tokens.flatten(),
        custom_mask=_target_mask(layout, batch, target_runner),
        positions=positions.flatten(),
        retrieve_index=numbers,
        retrieve_next_token=layout.next_child.contiguous(),
        retrieve_next_sibling=layout.next_sibling.contiguous(),
        retrieve_cum_len=None,
        spec_steps=merged.depth,
        topk=1 if merged.is_chain else width,
        draft_token_num=width,
        capture_hidden_mode=None,
        seq_lens_sum=None,
        seq_lens_cpu=None,
        law=merged.law,
    )


def _expand(layout: TreeLayout, batch_size: int) -> TreeLayout:
    return TreeLayout(
        positions=layout.positions.expand(batch_size, -1),
        ancestors=layout.ancestors.expand(batch_size, -1, -1),
        next_child=layout.next_child.expand(batch_size, -1),
        next_sibling=layout.next_sibling.expand(batch_size, -1),
    )


def _target_mask(layout: TreeLayout, batch: ScheduleBatch, target_runner: ModelRunner) -> torch.Tensor:
    """The mask where the target's attention backend wants it: its own buffer if it has one that fits."""
    backend = target_runner.attn_backend
    owned = backend.verify_mask
    mode = default_tree_mask_mode() if owned is None else owned.mode
    buffer = owned.buffer if owned is not None and owned.fits(len(batch.seq_lens)) else None
    seq_lens_sum = batch.seq_lens_sum
    if seq_lens_sum is None:
        seq_lens_sum = len(batch.seq_lens) * backend.max_context_len
    return tree_mask(layout.ancestors, batch.seq_lens, seq_lens_sum, mode, buffer)


def tree_mask(
    ancestors: torch.Tensor,
    seq_lens: torch.Tensor,
    seq_lens_sum: int,
    mode: TreeMaskMode,
    buffer: torch.Tensor | None = None,
) -> torch.Tensor:
    """Flat bool mask of SGLang's tree attention. ancestors: [b, D, D] bool; seq_lens: [b], the visible prefix.

    QLEN_ONLY: the trees alone, b*D*D entries. FULL_MASK: for each request D rows of (seq_len + D) entries, the
    prefix all True; seq_lens_sum may overestimate. Written into `buffer` if one is given.
    """
    if mode == TreeMaskMode.QLEN_ONLY:
        flat = ancestors.flatten()
        if buffer is None:
            return flat
        buffer[: flat.numel()] = flat
        return buffer
    if mode != TreeMaskMode.FULL_MASK:
        raise ValueError(f"HETERO does not know the tree mask {mode!r} of this attention backend.")
    batch_size, width, _ = ancestors.shape
    if buffer is None:
        size = seq_lens_sum * width + batch_size * width * width
        buffer = torch.ones(size, dtype=torch.bool, device=ancestors.device)
    else:
        buffer.fill_(True)
    row_lens = seq_lens + width
    starts = width * (row_lens.cumsum(0) - row_lens)
    nodes = torch.arange(width, device=ancestors.device)
    rows = starts.unsqueeze(1) + nodes * row_lens.unsqueeze(1) + seq_lens.unsqueeze(1)
    buffer[rows.unsqueeze(2) + nodes] = ancestors
    return buffer
