"""SGLang's verify input out of a merged tree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import torch
from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode
from sglang.srt.speculative.eagle_info import EagleVerifyInput
from sglang.srt.speculative.eagle_utils import default_tree_mask_mode

from sglang_hetero_spec.cuda.transfer import kept_on_device
from sglang_hetero_spec.drafters.tree import TreeLayout, chain_layout, lay_out
from sglang_hetero_spec.worker.merge import MergedLaw, MergedTree

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.model_executor.model_runner import ModelRunner

IRREGULAR_TREE = -1  # SGLang's word for a tree without a fixed branching factor (NGRAM uses it)


class Links(Protocol):
    """Of TreeLayout and of cuda.merge.DeviceTrees: [b, D] int64 each."""

    @property
    def positions(self) -> torch.Tensor: ...

    @property
    def next_child(self) -> torch.Tensor: ...

    @property
    def next_sibling(self) -> torch.Tensor: ...


@dataclass
class HeteroVerifyInput(EagleVerifyInput):
    """An EAGLE verify input whose trees may differ from request to request. law: of drafts drawn at random.

    tree_mask: the trees' own masks, bool, flat [b * D * D] and more, where the target attends in two parts
    (cuda.attn_backend); then custom_mask is the same.
    """

    law: MergedLaw | None = None
    tree_mask: torch.Tensor | None = None

    @property
    def tree_topk(self) -> int:
        return 1 if self.topk == 1 else IRREGULAR_TREE


def build_verify_input(merged: MergedTree, batch: ScheduleBatch, target_runner: ModelRunner) -> HeteroVerifyInput:
    """merged: trees of the whole batch; batch.seq_lens: [b], committed tokens without the root."""
    batch_size, width = merged.tokens.shape
    if merged.is_full_chain:
        layout = chain_layouts(batch_size, width, merged.tokens.device)
    else:
        layout = lay_out(merged.parents)
    place = mask_place(batch, width, target_runner)
    mask = tree_mask(layout.ancestors, batch.seq_lens, place.seq_lens_sum, place.mode, place.buffer)
    layout = replace(layout, positions=layout.positions + batch.seq_lens.unsqueeze(1))
    return verify_input(merged, layout, mask, in_parts=place.in_parts)


def verify_input(merged: MergedTree, layout: Links, mask: torch.Tensor, in_parts: bool) -> HeteroVerifyInput:
    """layout: positions with the committed tokens. mask: flat, as the attention backend wants it."""
    batch_size, width = merged.tokens.shape
    numbers = kept_on_device(range(batch_size * width), merged.tokens.device).view(batch_size, width)
    return HeteroVerifyInput(
        draft_token=merged.tokens.flatten(),
        custom_mask=mask,
        positions=layout.positions.flatten(),
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
        tree_mask=mask if in_parts else None,
    )


def irregular_tree_input(
    tokens: torch.Tensor, mask: torch.Tensor, width: int, seq_lens_cpu: torch.Tensor | None
) -> HeteroVerifyInput:
    """For a draft model's forward over nodes of trees, which nobody verifies. tokens: [b * width]; mask: flat, as the
    attention backend wants it; seq_lens_cpu: [b], tokens before the nodes."""
    return HeteroVerifyInput(
        draft_token=tokens,
        custom_mask=mask,
        positions=None,
        retrieve_index=None,
        retrieve_next_token=None,
        retrieve_next_sibling=None,
        retrieve_cum_len=None,
        spec_steps=width,
        topk=width + 1,
        draft_token_num=width,
        capture_hidden_mode=CaptureHiddenMode.NULL,
        seq_lens_sum=None if seq_lens_cpu is None else int(seq_lens_cpu.sum()),
        seq_lens_cpu=seq_lens_cpu,
    )


@lru_cache(maxsize=256)
def chain_layouts(batch_size: int, width: int, device: torch.device) -> TreeLayout:
    """Of as many chains. The same tensors every time: nobody writes to them."""
    layout = chain_layout(width, device)
    return TreeLayout(
        positions=layout.positions,
        ancestors=layout.ancestors.repeat(batch_size, 1, 1),
        next_child=layout.next_child.repeat(batch_size, 1),
        next_sibling=layout.next_sibling.repeat(batch_size, 1),
    )


@dataclass(frozen=True)
class MaskPlace:
    """Where the target's attention backend wants the mask: its own buffer if it has one that fits.

    seq_lens_sum: at least the committed tokens of the batch. in_parts: the backend reads the prefix without a mask.
    """

    mode: TreeMaskMode
    buffer: torch.Tensor | None
    seq_lens_sum: int
    in_parts: bool = False


def mask_place(batch: ScheduleBatch, width: int, target_runner: ModelRunner) -> MaskPlace:
    backend, batch_size = target_runner.attn_backend, len(batch.seq_lens)
    seq_lens_sum = batch.seq_lens_sum
    if seq_lens_sum is None:
        seq_lens_sum = batch_size * backend.max_context_len
    if batch.seq_lens.is_cuda:
        in_parts = mask_in_parts(batch, width, target_runner)
        if in_parts is not None:
            return MaskPlace(TreeMaskMode.QLEN_ONLY, in_parts, seq_lens_sum, in_parts=True)
    owned = backend.verify_mask
    mode = default_tree_mask_mode() if owned is None else owned.mode
    buffer = owned.buffer if owned is not None and owned.fits(batch_size) else None
    return MaskPlace(mode, buffer, seq_lens_sum)


def mask_in_parts(batch: ScheduleBatch, width: int, target_runner: ModelRunner) -> torch.Tensor | None:
    """The buffer for masks of trees alone, where this step's target forward will attend in two parts."""
    from sglang_hetero_spec.cuda.attn_backend import TreeFlashInferBackend

    backend, graphs = target_runner.attn_backend, target_runner.decode_cuda_graph_runner
    if not isinstance(backend, TreeFlashInferBackend) or batch.seq_lens_cpu is None:
        return None
    batch_size = len(batch.seq_lens)
    # A batch that a graph could hold and that runs without it finds what it needs in either way.
    in_graph = graphs is not None and batch_size <= graphs.max_bs
    return backend.tree_mask_for(batch_size, width, int(batch.seq_lens_cpu.max()), in_graph)


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
